"""The label commands as functions: import, export, stats, simulate, users, and the safety of serve."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from triphase.cli import label, label_campaigns, label_users
from triphase.errors import SettingsError, TriphaseError
from triphase.labeling.web.serving import check_safe, hosts, is_loopback, listener
from triphase.labeling.work.people import AccountError
from triphase.store import open_store


@pytest.fixture
def run(tmp_path: Path) -> str:
    rows = [
        {"prompt": f"Tell me about {n}.", "response": f"answer {k} about {n}" + " really" * k, "model": "m"}
        for n in range(12)
        for k in range(3)
    ]
    file = tmp_path / "responses.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    label.import_file(str(tmp_path), [file])
    return str(tmp_path)


def test_import_simulate_stats_export(capsys: pytest.CaptureFixture[str], run: str) -> None:
    assert "36 responses" in capsys.readouterr().out
    label.simulate(run, labelers=3)
    said = capsys.readouterr().out
    assert "answers by 3 labelers; next item after" in said and "agreement, ordered pairs" in said
    with open_store(run) as store:
        assert {one.prompt_id for one in store.rankings()} == {one.id for one in store.prompts()}
    label.stats(run)
    assert "simulated-3" in capsys.readouterr().out
    label.export_file(run, Path(run) / "out.jsonl")
    assert len((Path(run) / "out.jsonl").read_text().splitlines()) >= 30
    label.simulate(run, labelers=3)
    assert "0 answers by 3 labelers" in capsys.readouterr().out


def test_campaigns(run: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("Rate kindness.\n")
    label_campaigns.campaigns_add(run, "kindness", task="rating", share=50, guidelines=tmp_path / "rules.md", most=5)
    assert "kindness: 5 prompts, 5 answers wanted." in capsys.readouterr().out
    label.simulate(run, labelers=2)
    with open_store(run) as store:
        given = [one for one in store.answers() if one.campaign == "kindness"]
        assert len(given) == 5 and all(len(one.quality) == 3 and one.guideline_version == 1 for one in given)
    label_campaigns.campaigns_set(run, "kindness", overlap=2, state="paused")
    capsys.readouterr()
    label_campaigns.campaigns_list(run)
    shown = capsys.readouterr().out
    assert "kindness" in shown and "paused" in shown and "5 of 10" in shown
    label.stats(run, campaign="kindness")
    assert "5 of 10 slots over 5 items" in capsys.readouterr().out
    for campaign, lines in (("kindness", 5), ("main", 12)):
        with open_store(run) as store:
            assert (
                len({one.ranking.prompt_id for one in store.answers() if one.campaign == campaign.replace("main", "")})
                == lines
            )
        label.export_file(run, tmp_path / "out.jsonl", format="rankings", campaign=campaign)
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert {row["campaign"] for row in rows} == {None if campaign == "main" else campaign}
    for wrong, said in (
        (lambda: label.stats(run, campaign="typo"), "there is no campaign 'typo'; there are: main, kindness"),
        (lambda: label_campaigns.campaigns_set(run, "typo", share=3), "there is no campaign 'typo'"),
        (lambda: label_campaigns.campaigns_set(run, "kindness"), "nothing to change"),
        (lambda: label_campaigns.campaigns_add(run, "x", guidelines=tmp_path / "none.md"), "none.md: cannot be read"),
    ):
        with pytest.raises(TriphaseError, match=said):
            wrong()


def test_the_whole_human_step_without_torch(run: str) -> None:
    """Server, clients, statistics and exports in a process that can import neither torch nor packages that need it."""
    program = (
        "import sys\n"
        "for heavy in ('torch', 'transformers', 'peft', 'datasets', 'matplotlib'): sys.modules[heavy] = None\n"
        "from triphase.cli.main import main\n"
        f"for line in (['simulate', {run!r}, '--labelers', '2'], ['stats', {run!r}],\n"
        f"             ['export', {run!r}, {run + '/c.parquet'!r}], ['users', 'list', {run!r}]):\n"
        "    assert main(['label', *line]) == 0, line\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "simulated-2" in found.stdout and (Path(run) / "c.parquet").is_file()


def test_no_password_is_asked_for_where_there_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_users, "_ask_password", lambda: pytest.fail("asked"))
    for command in (label_users.users_add, label_users.users_reset):
        with pytest.raises(TriphaseError, match="typo: there is no store"):
            command(str(tmp_path / "typo"), "bob")
    assert not (tmp_path / "typo").exists()


def test_users(run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    label_users.users_add(run, "ann", password="long enough password")
    label_users.users_add(run, "lea", role="lead", password="long enough password")
    with pytest.raises(AccountError, match="'ann' is taken"):
        label_users.users_add(run, "ann", password="long enough password")
    with pytest.raises(AccountError, match="cannot be a name"):
        label_users.users_add(run, "Ann Other", password="long enough password")
    with pytest.raises(AccountError, match="has 5 characters; use 10 to 200"):
        label_users.users_add(run, "bob", password="short")
    label_users.users_pause(run, "ann")
    label_users.users_list(run)
    assert "paused" in capsys.readouterr().out
    label_users.users_pause(run, "ann", resume=True)
    label_users.users_reset(run, "ann", password="another good password")
    with pytest.raises(AccountError, match="no account 'zoe'"):
        label_users.users_reset(run, "zoe", password="another good password")
    with pytest.raises(AccountError, match="the only active lead"):
        label_users.users_pause(run, "lea")
    with pytest.raises(SettingsError, match="cannot be combined"):
        label_users.users_pause(run, "ann", withdraw=True, resume=True)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        TriphaseError, match=r"there is no store; check the path, sample responses .* or import something first"
    ):
        label.stats(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_first_lead_gets_a_link(run: str) -> None:
    with open_store(run) as store:
        link = label.first_lead_link(store, "http://127.0.0.1:8400")
        assert link is not None and link.startswith("http://127.0.0.1:8400/invitation/")
        label_users.users_add(run, "lea", role="lead", password="long enough password")
        assert label.first_lead_link(store, "http://127.0.0.1:8400") is None


def test_what_is_in_the_way_of_serving_is_named(run: str, tmp_path: Path) -> None:
    with listener("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port} cannot be served .*choose another --port"):
            label.serve(run, port=port)
    for port in (99_999_999, -1):
        with pytest.raises(SettingsError, match=rf"--port {port}: is not allowed"):
            label.serve(run, port=port)
    with pytest.raises(SettingsError, match=r"nope\.pem with --key None cannot be used"):
        label.serve(run, certificate=tmp_path / "nope.pem")
    with pytest.raises(SettingsError, match="give --certificate too"):
        label.serve(run, key=tmp_path / "key.pem")
    with pytest.raises(SettingsError, match="at least one labeler is needed"):
        label.simulate(run, labelers=0)


def test_passwords_do_not_travel_in_clear_text() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        assert is_loopback(host)
        check_safe(host, None, behind_proxy=False)
    for host in ("0.0.0.0", "192.168.1.7", "label.example"):  # noqa: S104
        with pytest.raises(SettingsError, match="clear text; give --certificate"):
            check_safe(host, None, behind_proxy=False, address="https://label.example")
        check_safe(host, Path("cert.pem"), behind_proxy=False, address="https://label.example")
        check_safe(host, None, behind_proxy=True, address="https://label.example")


def test_what_the_page_is_called_is_never_taken_from_a_request() -> None:
    for host, proxy in (("127.0.0.1", True), ("0.0.0.0", False), ("::", False)):  # noqa: S104
        with pytest.raises(SettingsError, match=r"needs --address, the address under which people reach the page"):
            check_safe(host, Path("cert.pem"), behind_proxy=proxy)
    for address in ("label.example", "ftp://label.example", "https://", "http://["):
        with pytest.raises(SettingsError, match="is not an http"):
            check_safe("127.0.0.1", None, behind_proxy=True, address=address)
    assert hosts("127.0.0.1", None) == ("127.0.0.1", "localhost", "::1", "127.0.0.1")
    assert hosts("0.0.0.0", "https://Label.example:8443/") == ("0.0.0.0", "label.example")  # noqa: S104
    assert "*" not in hosts("label.example", None)
