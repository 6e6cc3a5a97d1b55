"""The benchmark of a card runs whole on a processor with a tiny shape, and leaves out what would not end in time."""

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu


def test_the_tiny_shape_gives_a_table_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "line.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--layers", "third", "--json", str(kept)])
    gpu.main()
    *table, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert kept.read_text().strip() == line
    assert found["left_out"] == [] and found["quantization"] is None and found["commit"]
    rows = {row["what"]: row for row in found["rows"]}
    assert set(rows) == {"generation", "ppo", "sft", "reward"} and len(table) == 1 + len(found["rows"])
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
