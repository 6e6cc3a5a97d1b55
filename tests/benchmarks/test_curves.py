"""Time to quality: smoothing, targets, crossings and their ratios, by hand."""

import json
from pathlib import Path

import pytest
from benchmarks.curves import Ratio, middle, ratio_of, reached, smoothed, target_of
from benchmarks.quality_report import report

from triphase.errors import RunError

# Gold 0 3 6 6 3: means of the last three 0, 1.5, 3, 5, 5.
RISING = [(0.0, 0.0), (1.0, 3.0), (2.0, 6.0), (3.0, 6.0), (5.0, 3.0)]
FLAT = [(0.0, 0.0), (10.0, 0.0)]


def slower(factor: float) -> list[tuple[float, float]]:
    return [(factor * minutes, gold) for minutes, gold in RISING]


def test_gold_is_smoothed_over_the_last_three() -> None:
    assert smoothed(RISING) == [(0.0, 0.0), (1.0, 1.5), (2.0, 3.0), (3.0, 5.0), (5.0, 5.0)]


def test_the_target_is_nine_tenths_of_the_way_to_the_lower_best() -> None:
    assert target_of(0.0, RISING, RISING[:3]) == pytest.approx(0.9 * 3)
    assert target_of(-1.0, RISING, RISING[:3]) == pytest.approx(-1 + 0.9 * 4)
    assert target_of(0.0, RISING, FLAT) is None


def test_a_target_is_reached_between_two_evaluations() -> None:
    assert reached(RISING, 4.0) == pytest.approx(2.5)
    assert reached(RISING, 5.0) == pytest.approx(3.0)
    assert reached(RISING, 5.1) is None
    assert reached(RISING, 0.0) == 0.0


def test_where_a_side_never_arrives_the_ratio_is_a_bound() -> None:
    assert ratio_of(RISING, slower(4), 4.0) == Ratio(4.0)
    assert ratio_of(RISING, FLAT, 4.0) == Ratio(10 / 2.5, ">")
    assert ratio_of(FLAT, RISING, 4.0) == Ratio(2.5 / 10, "<")
    assert ratio_of(FLAT, FLAT, 4.0) is None
    assert ratio_of(RISING, RISING, 0.0) is None


def test_a_median_with_a_bound_in_it_is_a_bound() -> None:
    assert middle([Ratio(2.0), Ratio(9.0), Ratio(3.0)]) == Ratio(3.0)
    assert middle([Ratio(2.0), Ratio(9.0, ">"), Ratio(3.0)]) == Ratio(3.0, ">")
    assert middle([Ratio(2.0, "<"), Ratio(9.0, ">")]) is None
    assert middle([]) is None
    assert [str(Ratio(3.0)), str(Ratio(3.0, ">"))] == ["3.00", "> 3.00"]


def write_run(out: Path, name: str, seed: int, factor: float) -> None:
    rows = [
        {
            "iteration": number,
            "minutes": minutes,
            "score": gold,
            "kl": 0.0,
            "heldout": {"gold": gold, "kl": 1.0, "finished": 1.0, "tokens": 9.0},
        }
        for number, (minutes, gold) in enumerate(slower(factor))
        if number
    ]
    folder = out / f"{name}-float32-seed{seed}"
    folder.mkdir()
    checks = {"score_difference": 1e-6 * factor, "logit_difference": 1e-5} if name == "trl" else {}
    (folder / "judged.json").write_text(json.dumps({"peak_gb": 1.0, "checks": checks, "rows": rows}))


def test_what_was_measured_is_told_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sft.json").write_text(json.dumps({"found": {"gold": 0.0}}))
    write_run(tmp_path, "triphase", 0, 1.0)
    with pytest.raises(RunError, match="both sides"):
        report(tmp_path, [0], target=None, plot=None)
    for seed, factor in ((0, 4.0), (1, 6.0)):
        if seed:
            write_run(tmp_path, "triphase", seed, 1.0)
        write_run(tmp_path, "trl", seed, factor)
    found = report(tmp_path, [0, 1], target=None, plot=tmp_path / "plot.svg")
    assert (found["ratio"], found["ratio_is"], found["peer_dtype"]) == (5.0, "measured", "float32")
    assert found["score_difference"] == pytest.approx(6e-6)
    assert [row["target"] for row in found["seeds"]["float32"]] == [4.5, 4.5]
    assert "seed 1: gold 4.500: triphase 2.75 min, trl 1.12 float32 16.50 min, ratio 6.00" in capsys.readouterr().out
    assert "minutes of training" in (tmp_path / "plot.svg").read_text()
    assert report(tmp_path, [0], target=9.0, plot=None)["ratio"] is None
    with pytest.raises(RunError, match="seed2"):
        report(tmp_path, [2], target=None, plot=None)
