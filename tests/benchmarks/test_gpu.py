"""The benchmark of a card runs whole on a processor with a tiny shape, and leaves out what would not end in time."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_peer
from triphase.models.roles import REFERENCE
from triphase.objectives.invariants import InvariantError
from triphase.phases.ppo import PPOPhase
from triphase.phases.sft import SupervisedPhase
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.phases import SupervisedSettings
from triphase.tokens.encoding import Encoded


def test_the_tiny_shape_gives_a_table_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "line.json"
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    given = ["gpu", "--tiny", "--layers", "third", "--json", str(kept), "--peer", str(broken)]
    monkeypatch.setattr(sys, "argv", given)
    captures, advance = [], PPOPhase.advance

    def noted(phase: PPOPhase, iteration: int) -> dict[str, float]:
        captures.append((iteration, phase.shared.loaded.capture_decoding))
        return advance(phase, iteration)

    monkeypatch.setattr(PPOPhase, "advance", noted)
    gpu.main()
    # The operations of a captured step are not seen by who counts.
    assert captures == 2 * [(0, "auto"), (1, "auto"), (2, "off")]
    *table, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert kept.read_text().strip() == line
    assert found["left_out"] == [] and found["quantization"] is None and found["commit"]
    rows = {row["what"]: row for row in found["rows"]}
    assert set(rows) == {"generation", "ppo", "trl ppo", "sft", "reward"} and len(table) == 1 + len(found["rows"])
    assert found["rows"].pop([row["what"] for row in found["rows"]].index("trl ppo"))["error"]
    assert all(row["value"] > 0 and row["floor_share"] > 0 for row in found["rows"])
    assert set(rows["ppo"]["parts"]) == {"generation", "scoring", "update"} and rows["ppo"]["planned_gb"] > 0


def test_responses_are_as_long_as_the_table_counts_them() -> None:
    shared = gpu._shared("tiny", "third", torch.device("cpu"))
    generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=64)
    asked = [Request((5, 6), number) for number in range(64)]
    assert {len(each.ids) for each in generator.generate(asked, temperature=1.0, max_response_tokens=40)} == {40}


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
    place = {"shape": "tiny", "layers": "third", "what": "ppo"}
    ours = [place | each for each in ({"value": 3.0, "peak_gb": 0.5}, {"value": 2.0, "peak_gb": 0.5}, {"error": ""})]
    others = [{**ours[0], name: "another", "value": 1.0} for name in place]
    budget, options = gpu.Budget(time.perf_counter() + 60), argparse.Namespace(peer=python)
    (row,) = gpu._peer([*ours, *others], budget, ("tiny", "third"), shared, {}, options)
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
    shared = gpu._shared("tiny", "third", torch.device("cpu"))
    row = gpu_peer.peer_row(shared, python, (4, 16, 16), [], seconds=60)
    assert row == {"error": "the peer ended with 1: ModuleNotFoundError: no trl"}
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    row = gpu_peer.peer_row(shared, python, (4, 16, 16), [], seconds=0.2)
    assert row == {"error": "the peer was ended after 0 s, when the time for all was over"}


def test_a_model_that_does_not_fit_takes_no_other_row_along(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(shape: str, layers: str, *_: Any) -> Any:
        if layers == "all":
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20.00 GiB")
        return "opened"

    monkeypatch.setattr(gpu, "_shared", opened)
    monkeypatch.setattr(gpu, "_rate", lambda device: 1e12)
    monkeypatch.setattr(gpu, "_bandwidth", lambda device: 1e9)
    row = {"value": 1.0, "unit": "s", "peak_gb": 0.0}
    for part in ("_generation", "_ppo", "_sft", "_reward"):
        monkeypatch.setattr(gpu, part, lambda shared, *_: [{**row, "shared": str(shared)}])
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny"])
    gpu.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["shared"] for row in rows if row["layers"] == "third"] == 4 * ["opened"]
    assert [row["error"] for row in rows if row["layers"] == "all"] == 3 * ["CUDA out of memory."]


def test_a_part_that_fails_keeps_its_rows_and_leaves_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever fails: an invariant is an arithmetic error."""

    def part(*_: Any) -> Iterator[gpu.Row]:
        yield {"value": 1.0}
        raise InvariantError("the ratio must be 1")

    rows = list(gpu._guarded(part, lambda: Any, {}, argparse.Namespace()))
    assert rows == [{"value": 1.0}, {"error": "the ratio must be 1"}]
    assert "in part" in capsys.readouterr().err


def test_the_counted_operations_are_those_that_a_layer_does() -> None:
    """By hand, of a step of SFT on the one adapted layer of the tiny shape; the trunk is computed once, before."""
    shared = gpu._shared("tiny", "third", torch.device("cpu"))
    rows = [Encoded(gpu._ids(16, n, shared), gpu._ids(16, n + 999, shared)) for n in range(4)]
    phase = SupervisedPhase(shared, rows, [*range(4)] * 4, [], SupervisedSettings(batch_size=4, epochs=4))
    phase.advance(0)
    card = {"tflops": 1e-12}
    counted = gpu._against_floor(lambda: phase.advance(1), 1.0, card)
    every, read, rank = 4 * 32, 4 * 16, 16  # tokens; those that predict a response token

    def linear(tokens: int, inputs: int, outputs: int, *, first: bool = False) -> int:
        """W·x and the two products of the update; backward ∂A, ∂B and s·g·B, and, unless it is first, ∂x of both."""
        forward = inputs * outputs + rank * (inputs + outputs)
        backward = rank * (inputs + 2 * outputs) + (0 if first else inputs * outputs + rank * inputs)
        return 2 * tokens * (forward + backward)

    maps = linear(every, 64, 64, first=True) + 2 * linear(every, 64, 32, first=True)  # query, key, value
    maps += linear(read, 64, 64) + 2 * linear(read, 64, 128) + linear(read, 128, 64)  # output, gate, up, down
    attention = 2 * (2 + 5) * 4 * 4 * 32 * 32 * 16  # 4 rows of 4 heads: two products forward, five backward
    head = 2 * 2 * read * 512 * 64  # its derivative is taken in the forward pass
    assert counted == maps + attention + head


def test_a_peer_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--peer", "/nowhere"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "/nowhere does not exist; give a directory" in capsys.readouterr().err
