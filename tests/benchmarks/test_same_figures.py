"""Figures of two runs: rounding, a token that differs, rows that are missing, and evaluations that are apart."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from benchmarks.same_figures import Compared, compared, distance, errors_apart, judged


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


def samples(*gold: float, policy: str = "ppo") -> list[dict[str, Any]]:
    return [{"policy": policy, "gold": value} for value in gold]


def test_evaluations_are_compared_in_standard_errors() -> None:
    # Deviation 1 of 2 values: each error is 1/√2, so the difference has 1.
    found = errors_apart(samples(0.0, math.sqrt(2)), samples(2.0, 2.0 + math.sqrt(2)))
    assert found == {"ppo": pytest.approx(2.0)}
    assert errors_apart(samples(1.0, 1.0), samples(1.0, 1.0)) == {"ppo": 0.0}
    assert errors_apart(samples(1.0, 1.0), samples(2.0, 2.0)) == {"ppo": math.inf}
    assert errors_apart(samples(1.0), samples(1.0, 2.0)) == {}
    assert errors_apart(samples(1.0, 2.0), samples(1.0, 2.0, policy="sft")) == {}


def written(run: Path, losses: tuple[float, ...], gold: tuple[float, ...]) -> Path:
    for phase in ("sft", "reward", "ppo"):
        (run / phase).mkdir(parents=True)
        (run / phase / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(*losses)))
    (run / "evaluation").mkdir()
    (run / "evaluation" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples(*gold)))
    return run


def test_two_runs_are_the_same_or_not(tmp_path: Path) -> None:
    first = written(tmp_path / "first", (2.0, 1.0), (0.0, 1.0))
    later = written(tmp_path / "later", (2.0, 1.5), (0.1, 1.0))
    lines, is_same = judged(first, later)
    assert is_same and "ppo: 1 of 2 rows differ by rounding at most (largest 0.0e+00); then a/loss differs" in lines
    assert "evaluation: the gold scores of ppo are 0.1 standard errors apart" in lines
    assert not judged(first, written(tmp_path / "other", (2.1, 1.0), (0.0, 1.0)))[1]
    assert not judged(first, written(tmp_path / "worse", (2.0, 1.0), (9.0, 9.1)))[1]
