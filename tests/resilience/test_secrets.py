"""Secrets come from the environment and go nowhere: not into a file of the run, not to the terminal."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.runs import small_run

from triphase.cli.main import main
from triphase.errors import ServerError, TriphaseError
from triphase.monitoring import log
from triphase.monitoring.log import without_secrets
from triphase.runs import pipeline

SECRETS = {
    "HF_TOKEN": "hf_planted0123456789",
    "WANDB_API_KEY": "wandb-planted-4567",
    "PGPASSWORD": "pg-planted-8901",
    "TRIPHASE_SCORER_TOKEN": "scorer-planted-2345",
    "TRIPHASE_SECRET": "own-planted-6789",
    "AWS_SECRET_ACCESS_KEY": "aws-planted-0123",
    "TRIPHASE_POSTGRES": "postgresql+psycopg://lead:url-planted-4567@127.0.0.1:1/labels",
}
PLANTED = [value for name, value in SECRETS.items() if name != "TRIPHASE_POSTGRES"] + ["url-planted-4567"]
TALK = "everything in the environment: " + " ".join(SECRETS.values())


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def told(folder: Path) -> list[str]:
    """Files below ``folder`` that hold a secret, with its first letters."""
    return [
        f"{path.relative_to(folder)}: {secret[:6]}…"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for secret in PLANTED
        if secret.encode() in path.read_bytes()
    ]


@pytest.mark.usefixtures("planted")
def test_a_whole_run_with_errors_leaves_no_secret_in_any_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run.write_data(tmp_path)
    logger = logging.getLogger("triphase.cli")

    def reply(asked: Asked) -> Reply:
        """Once an echo of the token in a refusal, then scores."""
        if len(server.asked) == 1:
            return Reply(403, asked.headers["Authorization"] + " " + TALK)
        return Reply(body={"scores": [float(len(item["response"])) for item in asked.body["items"]]})

    server = FakeServer(reply)
    with server.running():
        scorer = {"address": server.address, "retries": 0, "token_variable": "TRIPHASE_SCORER_TOKEN"}
        ppo = {"iterations": 1, "batch_size": 4, "minibatch_size": 4, "epochs": 1, "scorer": scorer}
        chosen = small_run.settings(tmp_path, ppo={**ppo, "max_response_tokens": 8})

        def talk(run: object) -> None:
            logger.warning("%s", TALK)
            logger.debug("%s", TALK)
            raise RuntimeError(TALK)

        with pytest.raises(RuntimeError):
            small_run.do(chosen, talk)
        with pytest.raises(ServerError, match="status 403") as refused:
            small_run.do(chosen, pipeline.run_all)
        run = small_run.do(chosen, pipeline.run_all)
    for name in ("config.yaml", "log.jsonl", "summary.json", "report.html", "labels.sqlite", "ppo/metrics.jsonl"):
        assert (run.path / name).stat().st_size > 0
    assert "traceback" in (run.path / "log.jsonl").read_text() and "***" in (run.path / "log.jsonl").read_text()
    assert told(tmp_path) == []
    shown = "".join(capfd.readouterr())
    assert SECRETS["TRIPHASE_SCORER_TOKEN"] not in str(refused.value)
    assert not [secret for secret in PLANTED if secret in shown]


@pytest.mark.usefixtures("planted")
def test_without_the_blotting_the_secrets_would_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above looks in the right place."""
    monkeypatch.setattr(log, "without_secrets", lambda text: text)
    small_run.write_data(tmp_path)

    def talk(run: object) -> None:
        raise RuntimeError(TALK)

    with pytest.raises(RuntimeError):
        small_run.do(small_run.settings(tmp_path), talk)
    assert len(told(tmp_path)) == len(PLANTED)


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    "url",
    [
        SECRETS["TRIPHASE_POSTGRES"],
        "postgresql://lead:url-planted-4567@host:no-port/labels",
        "mysql://lead:url-planted-4567@host/labels",
        "postgresql://lead:p@ss:url-planted-4567@127.0.0.1:1/labels",
    ],
)
def test_a_password_in_the_address_of_a_store_is_not_told(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "stats", url]) == 2
    shown = "".join(capfd.readouterr())
    assert shown.startswith("error: ") and "url-planted" not in shown


def test_a_stopped_command_does_not_repeat_a_password(monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("triphase.cli.label.opened", stop)
    assert main(["label", "stats", "postgresql://lead:url-planted-4567@h/labels"]) == 130
    shown = capsys.readouterr().err
    assert "postgresql://lead:***@h/labels" in shown


@pytest.mark.usefixtures("planted")
def test_a_mistake_that_quotes_a_secret_is_blotted(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("triphase.cli.explain.explain", lambda: (_ for _ in ()).throw(TriphaseError(TALK)))
        assert main(["explain"]) == 2
    assert not [secret for secret in PLANTED if secret in capfd.readouterr().err]


def test_what_is_no_password_stays() -> None:
    for text in ("http://host:8000/a@b", "see http://x/y: mail me@host", "postgresql://lead@host/db", "a:b@c"):
        assert without_secrets(text) == text
    assert without_secrets("x://u:p@h y://v:q@h") == "x://u:***@h y://v:***@h"


def test_the_settings_know_no_place_for_a_secret(tmp_path: Path) -> None:
    """A token is named by its variable; the value of that variable never enters the settings."""
    text = "name: x\nmodel: {name: embedded:tiny}\ndata: {prompts: [{path: p.jsonl}]}\n"
    (tmp_path / "run.yaml").write_text(text + "ppo: {scorer: {token: abc}}\n")
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "triphase", "check", str(tmp_path / "run.yaml")],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 2 and "ppo.scorer.token: unknown setting" in done.stderr
