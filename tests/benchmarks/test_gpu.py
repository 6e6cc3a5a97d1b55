"""The benchmark of a card runs whole on a processor with a tiny shape, and leaves out what would not end in time."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_peer


def test_the_tiny_shape_gives_a_table_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "line.json"
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    given = ["gpu", "--tiny", "--layers", "third", "--json", str(kept), "--peer", str(broken)]
    monkeypatch.setattr(sys, "argv", given)
    gpu.main()
    *table, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert kept.read_text().strip() == line
    assert found["left_out"] == [] and found["quantization"] is None and found["commit"]
    rows = {row["what"]: row for row in found["rows"]}
    assert set(rows) == {"generation", "ppo", "trl ppo", "sft", "reward"} and len(table) == 1 + len(found["rows"])
    assert found["rows"].pop([row["what"] for row in found["rows"]].index("trl ppo"))["error"]
    assert all(row["value"] > 0 and row["floor_share"] > 0 for row in found["rows"])
    assert set(rows["ppo"]["parts"]) == {"generation", "scoring", "update"} and rows["ppo"]["planned_gb"] > 0


def test_a_part_that_would_end_too_late_is_left_out() -> None:
    budget = gpu.Budget(time.perf_counter() + 1.0)
    assert budget.allows("ppo", "all", "8b")  # never timed
    with budget.spending("ppo", "all", "1b"):
        time.sleep(0.25)
    assert budget.allows("ppo", "all", "1b") and not budget.allows("ppo", "all", "8b")
    assert budget.allows("ppo", "third", "8b")
    assert not gpu.Budget(time.perf_counter() - 1.0).allows("sft", "all", "1b")


PEER = """#!{python}
import json, os, sys
from pathlib import Path
config = json.loads(Path(sys.argv[2], "config.json").read_text())
print("a line of its own")
print(json.dumps({{
    "seconds_per_iteration": [9.0, 6.0], "peak_gb": 2.0, "parts": {{"generation": 1.0}},
    "asked": sys.argv[3:], "hidden": config["hidden_size"], "path": os.environ.get("PYTHONPATH", ""),
}}))
"""


def test_the_peer_runs_beside_ours_on_the_same_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(PEER.format(python=sys.executable))
    python.chmod(0o755)
    asked: list[list[str]] = []
    run = subprocess.run

    def noted(command: list[str], **options: Any) -> Any:
        done = run(command, **options)
        asked.append([*command, done.stdout])
        return done

    monkeypatch.setattr(gpu_peer.subprocess, "run", noted)
    shared = gpu._shared("tiny", "third", torch.device("cpu"))
    ours = [{"value": 3.0, "peak_gb": 0.5}, {"value": 2.0, "peak_gb": 0.5}, {"error": "no room"}]
    row = gpu_peer.peer_row(shared, python, (4, 16, 16), ours)
    assert (row["value"], row["times_slower"], row["our_share_of_its_peak"]) == (6.0, 3.0, 0.25)
    found = json.loads(asked[0][-1].splitlines()[-1])
    assert found["hidden"] == 64 and found["asked"][:4] == ["1", "bfloat16", "2", "--random"]
    told = dict(zip(found["asked"][4::2], found["asked"][5::2], strict=True))
    assert told == {"--episodes": "4", "--prompt-tokens": "16", "--response-tokens": "16", "--epochs": "2",
                    "--minibatches": "2", "--microbatch": "2"}  # fmt: skip
    assert "3.0 times ours" in gpu._shown({"shape": "tiny", "layers": "third", "what": gpu_peer.PEER, **row})
    monkeypatch.setenv("PYTHONPATH", "before")
    assert gpu_peer.peer_of(tmp_path) == (sys.executable, {"PYTHONPATH": f"{tmp_path}:before"})


def test_a_peer_that_fails_is_named_in_the_table(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no trl' >&2; exit 1\n")
    python.chmod(0o755)
    row = gpu_peer.peer_row(gpu._shared("tiny", "third", torch.device("cpu")), python, (4, 16, 16), [])
    assert row == {"error": "the peer ended with 1: ModuleNotFoundError: no trl"}


def test_a_peer_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--peer", "/nowhere"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "/nowhere does not exist; give a directory" in capsys.readouterr().err
