"""Servers that a run starts: the flags, the wait, the error with the log's last lines, and every way to end them."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.settings_text import settings_from_text

from triphase.errors import RunError, ServerAway, ServerError, SettingsError
from triphase.rollouts.servers import Served, ServerGenerator
from triphase.rollouts.serving import Base, require_vllm, server_command, server_environment
from triphase.rollouts.started import StartedServers, last_lines
from triphase.rollouts.types import Request
from triphase.rollouts.vllm_server import rank_limit
from triphase.settings.schema import RunSettings

FAKE = Path(__file__).with_name("fake_vllm.py")


def settings(folder: Path, behave: str = "well", **changes: Any) -> RunSettings:
    """Settings whose servers are fake ones."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    python.chmod(0o755)
    rollouts = {
        "servers": 1,
        "python": str(python),
        "arguments": ["--behave", behave, "--pids", str(folder / "pids")],
        "retries": 0,
        **changes,
    }
    return RunSettings.model_validate({"name": "x", "model": {"name": "m"}, "data": {}, "rollouts": rollouts})


def servers(chosen: RunSettings, folder: Path, said: list[str]) -> StartedServers:
    return StartedServers(
        chosen.rollouts,
        lambda host, port: server_command(chosen, Base("m"), host, port),
        server_environment(chosen.rollouts, on_cpu=True),
        folder / "logs",
        check=lambda: None,
        say=said.append,
    )


def pids(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "pids").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_within(processes: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(map(is_alive, processes)):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    if (tmp_path / "pids").exists():
        for pid in pids(tmp_path):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_they_answer_behind_a_token_and_end_with_all_that_they_began(tmp_path: Path) -> None:
    said: list[str] = []
    with servers(settings(tmp_path), tmp_path, said) as started:
        address, running = started.addresses[0], pids(tmp_path)
        assert all(map(is_alive, running))
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address}/v1/models")  # noqa: S310
        headers = {"Authorization": f"Bearer {started.token}"}
        asked = urllib.request.Request(f"{address}/v1/models", headers=headers)  # noqa: S310
        with urllib.request.urlopen(asked) as answer:  # noqa: S310
            assert answer.status == 200
    assert gone_within(running, 3)
    assert said[0].startswith(f"starting a vLLM server (log: {tmp_path / 'logs' / 'vllm-0.log'})")
    assert "ready after" in said[1]
    assert started.token not in (tmp_path / "logs" / "vllm-0.log").read_text()


def test_one_that_does_not_come_up_is_told_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(
        ServerError, match=r"server 0 ended with exit code 3 .*vllm-0\.log: ValueError: the model has no"
    ):
        servers(settings(tmp_path, "fails"), tmp_path, []).__enter__()


def test_one_that_dies_of_the_first_adapter_is_told_with_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    chosen = settings(tmp_path, "dies")
    with servers(chosen, tmp_path, []) as started:
        generator = ServerGenerator(chosen.rollouts, lambda: tmp_path, Served((1,), 9), started=started)
        with (
            closing(generator),
            pytest.raises(ServerAway, match=r"server 0 ended with exit code 9; .*OutOfMemoryError"),
        ):
            generator.generate([Request((1, 2), 0)], temperature=1.0, max_response_tokens=4)


def test_a_python_that_is_gone_by_then_is_told(tmp_path: Path) -> None:
    started = servers(settings(tmp_path), tmp_path, [])
    (tmp_path / "python").unlink()
    with pytest.raises(ServerError, match=r"ended with exit code 127 .*FileNotFoundError: .*No such file .*/python'"):
        started.__enter__()


@pytest.mark.parametrize("place", ["logs", "logs/vllm-0.log/x"])
def test_a_log_that_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    with pytest.raises(RunError, match=r"/logs(/vllm-0\.log)?: (cannot be written|is a directory)"):
        servers(settings(tmp_path), tmp_path, []).__enter__()


def test_one_that_does_not_answer_in_time_is_ended(tmp_path: Path) -> None:
    chosen = settings(tmp_path, "silent", ready_seconds=0.5)
    with pytest.raises(ServerError, match=r"does not respond within ready_seconds 0\.5; .* is empty"):
        servers(chosen, tmp_path, []).__enter__()


def test_an_error_and_ctrl_c_end_them(tmp_path: Path) -> None:
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), servers(settings(tmp_path), tmp_path, []):
            running = pids(tmp_path)
            raise error
        assert gone_within(running, 3)


def test_kill_9_of_the_run_leaves_none_behind(tmp_path: Path) -> None:
    settings(tmp_path)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.rollouts.test_started import servers, settings\n"
        "folder = Path(sys.argv[1])\n"
        "with servers(settings(folder), folder, []): print('up', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
    running = pids(tmp_path)
    assert all(map(is_alive, running))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone_within(running, 5)


def test_one_that_ended_is_started_again_three_times(tmp_path: Path) -> None:
    said: list[str] = []
    with servers(settings(tmp_path), tmp_path, said) as started:
        started.require_running(0)  # it runs: nothing is done
        assert len(said) == 2
        for number in range(4):
            keeper = started._servers[0].keeper
            assert keeper is not None
            before = pids(tmp_path)
            os.kill(before[0], signal.SIGKILL)
            keeper.wait(5)
            assert gone_within(before, 2)  # what it had begun is cleared away
            if number == 3:
                with pytest.raises(ServerError, match="ended 4 times"):
                    started.require_running(0)
                break
            started.require_running(0)
            end = time.monotonic() + 5
            while pids(tmp_path) == before and time.monotonic() < end:
                time.sleep(0.05)
    assert sum("is restarted" in line for line in said) == 3


def test_kill_9_of_a_keeper_leaves_none_behind_and_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    with servers(settings(tmp_path), tmp_path, said) as started:
        for number in range(2):
            keeper, before = started._servers[0].keeper, pids(tmp_path)
            assert keeper is not None
            keeper.kill()
            keeper.wait(5)
            assert gone_within(before[:1], 3)  # the server itself
            if number:
                assert "server 0 has lost its keeper, which was killed by signal 9" in str(started.end_of(0))
                break  # and what it had begun is cleared away at the end of the run
            started.require_running(0)
            assert gone_within(before, 2)  # or when it is started again
            end = time.monotonic() + 5
            while pids(tmp_path) == before and time.monotonic() < end:
                time.sleep(0.05)
    assert gone_within(before, 2)
    assert "vLLM server 0 was ended, since its keeper was killed by signal 9, and is restarted" in said[2]


def test_flags_follow_the_settings(tmp_path: Path) -> None:
    chosen = settings(tmp_path).model_copy(
        update={"adapters": settings(tmp_path).adapters.model_copy(update={"rank": 12})}
    )
    words = server_command(chosen, Base("base", "bfloat16", on_cpu=True), "127.0.0.1", 81)
    for name, value in {
        "--model": "base", "--dtype": "bfloat16", "--port": "81", "--max-lora-rank": "16",
        "--max-model-len": str(chosen.model.max_length), "--logprobs-mode": "processed_logprobs",
    }.items():  # fmt: skip
        assert words[words.index(name) + 1] == value
    assert "--enable-lora" in words and "--enforce-eager" in words and "--trust-remote-code" not in words
    assert "--enforce-eager" not in server_command(chosen, Base("base"), "127.0.0.1", 81)
    assert words[-2:] == ["--pids", str(tmp_path / "pids")]
    assert server_environment(chosen.rollouts, on_cpu=False)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


def test_what_holds_for_this_python_is_kept_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    other = settings(tmp_path).rollouts
    assert "PYTHONPATH" not in server_environment(other, on_cpu=False)
    assert "PYTHONPATH" in server_environment(other.model_copy(update={"python": None}), on_cpu=False)


def test_the_limit_of_ranks() -> None:
    assert [rank_limit(rank) for rank in (1, 8, 9, 16, 17, 100, 512)] == [8, 8, 16, 16, 32, 128, 512]
    with pytest.raises(SettingsError, match=r"adapters\.rank 513 is above 512"):
        rank_limit(513)


def test_a_python_without_vllm_is_refused(tmp_path: Path) -> None:
    require_vllm(settings(tmp_path).rollouts)
    with pytest.raises(SettingsError, match=r"rollouts\.python: .*nowhere is not an"):
        require_vllm(settings(tmp_path, python=str(tmp_path / "nowhere")).rollouts)
    with pytest.raises(SettingsError, match=r"has no package vllm; set rollouts\.python"):
        require_vllm(settings(tmp_path, python=None).rollouts)


def test_the_log_of_an_earlier_start_is_not_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n# python -m vllm\nOldError: gone\n\n# python -m vllm\nline 1\nKeyError: now\n" + "line\n" * 5)
    assert last_lines(log) == ["KeyError: now", *["line"] * 4]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("rollouts: {engine: vllm}", "engine vllm needs servers"),
        ("rollouts: {engine: local, servers: 1}", "engine local samples in this process"),
        ("rollouts: {servers: 1, addresses: ['http://h:1']}", "set one of the two"),
        ("rollouts: {servers: 2, devices: ['0']}", "GPUs for 1 server, but servers is 2"),
        ("rollouts: {servers: 1, arguments: [--port=9]}", "arguments holds --port, which Triphase sets itself"),
        ("rollouts: {servers: 1, arguments: [--api_key, secret]}", "arguments holds --api-key, which Triphase sets"),
        (
            'rollouts: {servers: 1, arguments: ["a\\0"]}',
            "arguments holds 'a.x00', which contains a character that a command",
        ),
        ('rollouts: {servers: 1, devices: ["0\\0"]}', "devices holds '0.x00'"),
        ("rollouts: {servers: 1}\nppo: {method: full}", "rollouts.servers load only adapters"),
        ("rollouts: {servers: 1}\nadapters: {rank: 600}", "above 512"),
        ("rollouts: {servers: 1}\nppo: {temperature: 0.001}", "ppo.temperature 0.001 is below 0.01"),
        ("rollouts: {ahead: 1}", "ahead 1 samples while this process trains, which only servers can"),
        ("rollouts: {ahead: 2, servers: 1}", "rollouts.ahead"),
        (
            "rollouts: {ahead: 1, servers: 1}",
            "samples of the previous policy need importance weights; set ppo.importance_limit",
        ),
        (
            "rollouts: {ahead: 1, servers: 1}\nppo: {importance_limit: 2}\nvariants: {a: {importance_limit: null}}",
            "set variants.a.importance_limit",
        ),
        ("rollouts: {sampling: true}", "sampling true needs servers"),
        ("rollouts: {evaluation: true}", "evaluation true needs servers"),
        (
            "rollouts: {sampling: true, servers: 1}\nsampling: {temperature: 0.001}",
            "sampling.temperature 0.001 is below 0.01",
        ),
        ("ppo: {importance_limit: 2}", "rollouts has none"),
        ("variants: {one: {importance_limit: 2}}", "variants.one.importance_limit 2 weights"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(line: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        settings_from_text(f"name: x\nmodel: {{name: m}}\ndata: {{prompts: [{{path: p.jsonl}}]}}\n{line}\n")
