"""Output that cannot be written stops no work and shows no traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triphase.cli.main import FAILED, WAITING, main

EXPLAIN = f"{sys.executable} -m triphase explain"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("command", ["explain", "--help", "label --help", "--version"])
@pytest.mark.parametrize("target", [">/dev/full", ">&-", ">&- 2>&-", "</dev/null >/dev/full 2>/dev/full", "<&-"])
def test_a_stream_that_is_closed_or_full(command: str, target: str) -> None:
    done = shell(f"{sys.executable} -m triphase {command} {target}")
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert done.returncode == (0 if target == "<&-" else FAILED)
    if target == ">/dev/full":
        assert done.stderr == "error: cannot write to standard output ([Errno 28] No space left on device)\n"


def test_a_reader_that_goes_away_is_no_mistake() -> None:
    done = shell(f"{EXPLAIN} | head -1; echo ${{PIPESTATUS[0]}}")
    assert "Traceback" not in done.stderr and not done.stderr


def test_an_encoding_that_lacks_a_character() -> None:
    done = shell(EXPLAIN, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0 and "Traceback" not in done.stderr and "4.2" in done.stdout
    wrong = shell(f"{sys.executable} -m triphase check 'Grüße.yaml'", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr


def test_a_run_goes_on_when_its_terminal_goes_away(tmp_path: Path) -> None:
    from tests.runs import small_run

    small_run.write_data(tmp_path)
    config = tmp_path / "c.yaml"
    import yaml

    config.write_text(yaml.safe_dump(small_run.settings(tmp_path, method="lora").model_dump(mode="json")))
    done = shell(
        f"{sys.executable} -m triphase sft {config} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}", OMP_NUM_THREADS="1"
    )
    assert (tmp_path / "runs" / "small" / "sft" / "final").is_dir(), done.stdout
    assert done.returncode == FAILED and "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("width", ["0", "00", "1"])
def test_a_terminal_of_no_width_shows_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert main(["settings", "ppo.kl_coefficient"]) == 0
    assert "0.05" in capsys.readouterr().out


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    done = shell(
        f"{sys.executable} -m triphase demo --tiny --output {tmp_path}",
        HOME="/proc/nowhere", XDG_CACHE_HOME="/proc/nowhere/cache", TRIPHASE_CACHE="", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "set TRIPHASE_CACHE to a writable directory" in done.stderr


def test_waiting_for_people_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from triphase.cli import main as module
    from triphase.errors import WaitingForPeople

    def waits(*_: object, **__: object) -> None:
        raise WaitingForPeople("waiting for people to rank: 0 of 3; serve the page with `triphase label serve runs/x`")

    monkeypatch.setattr(module, "application", lambda: waits)
    assert main(["run", "x.yaml"]) == WAITING == 3
    said = capsys.readouterr().err
    assert said.startswith("waiting for people to rank") and "error" not in said


@pytest.mark.slow
def test_a_run_goes_on_when_its_terminal_is_closed(tmp_path: Path) -> None:
    """Closing a terminal sends SIGHUP to what runs in it, and its output cannot be written any more."""
    from tests.runs import small_run

    small_run.write_data(tmp_path)
    chosen = small_run.settings(tmp_path, method="lora")
    (tmp_path / "c.yaml").write_text(json.dumps(chosen.model_dump(mode="json")))
    words = [sys.executable, "-m", "triphase", "sft", str(tmp_path / "c.yaml")]
    log, (reading, writing) = tmp_path / "runs" / "small" / "log.jsonl", os.pipe()
    with subprocess.Popen(words, stdout=writing, stderr=writing, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        os.close(writing)
        end = time.monotonic() + 120
        while not (log.is_file() and log.stat().st_size) and time.monotonic() < end:
            time.sleep(0.02)
        os.close(reading)
        process.send_signal(signal.SIGHUP)
        assert process.wait(120) in (0, FAILED)
    assert (tmp_path / "runs" / "small" / "sft" / "final").is_dir()
    assert f"the terminal was closed; the run continues. To stop it: kill {process.pid}" in log.read_text()


def test_only_what_trains_outlasts_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from triphase.cli import main as module

    seen: dict[str, object] = {}
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    monkeypatch.setattr(
        module, "application", lambda: lambda given, **_: seen.update({given[0]: signal.getsignal(signal.SIGHUP)})
    )
    for words in (["run", "x"], ["sweep", "x"], ["chat", "x"], ["label", "stats", "x"]):
        main(words)
    assert callable(seen["run"]) and callable(seen["sweep"])
    assert seen["chat"] == seen["label"] == signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        main(["run", "x"])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen["run"] == signal.SIG_IGN, "nohup stays as it is"
