"""Figures of two runs: rounding, a token that differs, rows that are missing, and gold scores that are apart."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from benchmarks.same_figures import PHASES, Compared, Runs, compared, distance, gold, is_one_of, judged

from benchmarks import same_figures
from triphase.settings.loading import load_settings


def rows(*losses: float, **more: Any) -> list[dict[str, Any]]:
    return [
        {"step": number, "a/loss": loss, "a/seconds_update": 9.0 * loss, **more} for number, loss in enumerate(losses)
    ]


def test_rows_count_up_to_the_first_that_is_no_rounding() -> None:
    first = rows(2.0, 1.0, 0.5)
    assert compared(first, rows(2.0, 1.0, 0.5)) == Compared(3, 3, 0.0)
    found = compared(first, rows(2.001, 1.0, 0.9))
    assert (found.same, found.rows, found.metric) == (2, 3, "a/loss") and found.largest == pytest.approx(0.0005)
    assert compared(first, rows(2.0, 1.0)) == Compared(2, 3, 0.0, "number of rows")
    assert compared(first, rows(2.0, 1.0, 0.5, other=1.0)).metric == "other"  # a metric that one of them lacks
    assert compared(first, [{**row, "a/seconds_update": 0.0, "time": 7} for row in first]).same == 3


def test_a_distance_is_relative_above_one() -> None:
    assert (distance(100.0, 101.0), distance(0.1, 0.2)) == (pytest.approx(0.01), pytest.approx(0.1))
    assert distance(1.0, None) == math.inf and distance(math.nan, math.nan) == 0 and distance(math.nan, 1.0) == math.inf
    assert distance("x", "y") == 0


def test_a_value_is_one_of_others_or_not() -> None:
    # Deviation 1 of three values: one more has a standard error of √(4/3), and t is 9.92 with two degrees of freedom.
    assert is_one_of(1.0 + 9.92 * math.sqrt(4 / 3) - 0.01, [0.0, 1.0, 2.0]) == (True, 1.0)
    assert is_one_of(1.0 - 9.92 * math.sqrt(4 / 3) - 0.01, [0.0, 1.0, 2.0]) == (False, 1.0)
    assert is_one_of(3.0, [3.0, 3.0]) == (True, 0.0) and is_one_of(3.1, [3.0, 3.0]) == (False, 0.0)


def written(run: Path, losses: tuple[float, ...]) -> Path:
    for phase in PHASES:
        (run / phase).mkdir(parents=True)
        (run / phase / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(*losses)))
    return run


def test_two_runs_are_the_same_or_not(tmp_path: Path) -> None:
    first = written(tmp_path / "first", (2.0, 1.0))
    later = written(tmp_path / "later", (2.0, 1.5))
    lines, is_same = judged(first, dict.fromkeys(PHASES, later), 1e-3)
    assert is_same and "ppo: 1 of 2 rows differ by rounding at most (largest 0.0e+00); then a/loss differs" in lines
    other = written(tmp_path / "other", (2.1, 1.0))
    assert not judged(first, {"sft": first, "ppo": other}, 1e-3)[1]
    assert judged(first, {"sft": first, "ppo": other}, 0.06)[1]  # bfloat16 rounds more
    (later / "evaluation").mkdir()
    (later / "evaluation" / "samples.jsonl").write_text(
        "".join(
            json.dumps({"policy": policy, "gold": value}) + "\n"
            for policy, value in (("ppo", 1), ("sft", 9), ("ppo", 2))
        )
    )
    assert gold(later) == 1.5


def test_each_phase_is_repeated_by_several_processes_on_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(same_figures, "_done", lambda words: done.append(" ".join(words).replace(f"{tmp_path}/", "")))
    runs = Runs(tmp_path, 2, tiny=True, dtype="float32")
    assert [runs.alone(), *map(runs.again, PHASES), runs.seed(3)] == [
        tmp_path / name for name in ("alone", *PHASES, "seed-3")
    ]
    several = "-m torch.distributed.run --standalone --nproc-per-node 2"
    assert done == [
        "-m triphase run alone.yaml",
        f"{several} -m triphase sft sft.yaml",
        "-m triphase branch alone reward --again reward",
        f"{several} -m triphase reward reward",
        "-m triphase branch alone ppo --again ppo",
        f"{several} -m triphase ppo ppo",
        "-m triphase branch alone seed-3 --ppo.seed 3 --run",
    ]
    for name in ("alone", "sft"):
        settings = load_settings(tmp_path / f"{name}.yaml")
        assert (settings.name, settings.threads, settings.model.dtype) == (name, 1, "float32")
