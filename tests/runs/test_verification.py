"""`run --verify` repeats the first steps of each phase and reports those that differ."""

import json
import shutil
from pathlib import Path

import pytest
from tests.runs.small_run import do, files_of, settings, write_data

from triphase.cli.main import main
from triphase.monitoring.sums import seal
from triphase.records.files import fingerprint
from triphase.reports.contents import read_run
from triphase.runs import pipeline, verification


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified")
    write_data(folder)
    variants = {"free": {"kl_coefficient": 0.0}}
    chosen = settings(folder, method="lora", variants=variants)
    do(chosen, pipeline.run_all)
    return folder / "runs" / "small"


def test_a_run_repeats_and_is_only_read(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(whole, "**/*")
    assert main(["run", "--verify", str(whole)]) == 0
    lines = capsys.readouterr().out.splitlines()
    steps = {"sft": 3, "reward": 3, "ppo": 2, "arms/free": 2}
    expected = [f"{phase} step {step}" for phase, count in steps.items() for step in range(1, count + 1)]
    assert [line.split(":")[0] for line in lines[:-1]] == expected
    assert all(": same" in line for line in lines[:-1])
    assert "all 10 steps" in lines[-1]
    assert files_of(whole, "**/*") == before


def test_one_whose_settings_call_the_variants_arms_opens_and_repeats(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """As the version before wrote it: it continues, is reported, branched and verified, and is not rewritten."""
    run = tmp_path / "before"
    shutil.copytree(whole, run)
    config = run / "config.yaml"
    text = config.read_text().replace("\n  variants:\n", "\n  arms:\n").replace("name: small", "name: before")
    assert "\n  arms:\n" in text
    config.write_text(text)
    seal(run, [config.name])
    before = files_of(run, "*/**/*")
    assert main(["run", str(run)]) == 0
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert config.read_text() == text and files_of(run, "*/**/*") == before and said == []
    assert read_run(run).settings["variants"] == {"free": {"kl_coefficient": 0.0}}
    assert main(["branch", str(run), "next", "--arms.free.kl-coefficient", "0.5"]) == 0
    assert "variants.free.kl_coefficient was 0.0 and is 0.5" in capsys.readouterr().out
    assert main(["run", "--verify", str(run)]) == 0
    assert "arms/free step 2: same" in capsys.readouterr().out
    config.write_text(text.replace("\n  arms:", "\n  variants: {}\n  arms:"))
    for command in ("report", "run"):
        assert main([command, str(run)]) == 2
        assert "arms is " in capsys.readouterr().err


def test_another_start_is_told(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recorded checksum of the second step differs, as on another machine or version."""
    checkpoint = max((whole / "sft" / "checkpoints").iterdir())
    values, manifest = checkpoint / "values.json", checkpoint / "manifest.json"
    kept = values.read_bytes(), manifest.read_bytes()
    try:
        changed = json.loads(kept[0])
        changed["fingerprints"]["2"] = "0" * 64
        values.write_text(json.dumps(changed))
        sums = json.loads(kept[1])
        sums["sha256"]["values.json"] = fingerprint(values)
        manifest.write_text(json.dumps(sums))
        assert main(["run", "--verify", str(whole)]) == 1
    finally:
        values.write_bytes(kept[0])
        manifest.write_bytes(kept[1])
    out = capsys.readouterr().out
    assert "sft step 2: DIFFERENT" in out and "sft step 1: same" in out and "note: versions are the same" in out


def test_code_and_packages_that_have_changed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, object] = {"versions": {"torch": "1", "peft": "1"}, "git_revision": "old"}
    monkeypatch.setattr(verification, "read_config", lambda path: config)
    monkeypatch.setattr(verification, "versions", lambda: {"torch": "2", "peft": "1"})
    monkeypatch.setattr(verification, "git_revision", lambda: "new")
    revision = "the git revision of this directory was old and is new"
    assert verification.differences(tmp_path) == ["torch was 1 and is 2", revision]
    monkeypatch.setattr(verification, "git_revision", lambda: None)
    assert verification.differences(tmp_path)[1] == revision.replace("new", "unknown")
    config["git_revision"] = None  # started outside a repository
    assert verification.differences(tmp_path) == ["torch was 1 and is 2"]


def test_what_cannot_be_verified_is_told_in_a_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([str(tmp_path)], [str(tmp_path / "nothing")]):
        assert main(["run", "--verify", *arguments]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert main(["run", str(whole), "--verify", str(whole)]) == 2
    assert main(["run"]) == 2
