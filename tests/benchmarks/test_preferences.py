"""The statistics of score differences in `benchmarks.preferences`."""

import math
from pathlib import Path

import pytest
from benchmarks.preferences import Kept, against_peer, judged


def test_accuracy_and_loss_by_hand() -> None:
    accuracy, loss = judged([2.0, -1.0, 0.0])
    assert accuracy.value == pytest.approx(0.5)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.e) + math.log(2)) / 3
    assert loss.value == pytest.approx(expected)


def test_large_differences_do_not_overflow() -> None:
    assert judged([1000.0, -1000.0])[1].value == pytest.approx(500)


def test_the_sides_are_compared_over_the_seeds_that_both_have() -> None:
    found = {
        ("triphase", "10", 3e-4, 0): [1.0, -1.0],
        ("triphase", "10", 3e-4, 1): [2.0, 0.0],
        ("triphase", "all", 3e-4, 0): [3.0, 3.0],
        ("trl", "10", 1e-3, 0): [-1.0, -1.0],
        ("trl", "10", 1e-3, 1): [2.0, 1.0],
        ("trl", "10", 1e-3, 2): [9.0, 9.0],
        ("trl", "10", 3e-4, 0): [1.0, -1.0],
    }
    compared = against_peer(found)
    assert set(compared) == {("10", 1e-3), ("10", 3e-4)} and compared["10", 3e-4][0].value == 0.0
    accuracy, loss, seeds = compared["10", 1e-3]
    assert accuracy.value == pytest.approx(((1 - 0) / 2 + (0.5 - 1) / 2) / 2) and seeds == 2
    expected = (math.log1p(math.exp(-1)) - math.log1p(math.exp(1)) + math.log(2) - math.log1p(math.exp(-1))) / 4
    assert loss.value == pytest.approx(expected)


def test_a_kept_row_is_of_one_command_and_of_the_same_comparisons(tmp_path: Path) -> None:
    trained, kept = tmp_path / "trained.jsonl", tmp_path / "kept.jsonl"
    trained.write_text("{}\n")

    def rows(scratch: str) -> Kept:
        return Kept(kept, [str(trained)], scratch)

    def command(scratch: str, seed: str) -> list[str]:
        return ["/some/python", "peer_preferences.py", f"{scratch}/trained.jsonl", "10", "3e-4", seed, scratch]

    assert rows("/a").row(command("/a", "0")) is None
    rows("/a").add(command("/a", "0"), {"margins": {"adapter": [1.0]}})
    rows("/a").add(command("/a", "1"), {"margins": {"adapter": [2.0]}})
    assert rows("/b").row(command("/b", "0")) == {"margins": {"adapter": [1.0]}}
    assert rows("/b").row(command("/b", "1")) == {"margins": {"adapter": [2.0]}}
    assert rows("/b").row(command("/b", "2")) is None
    trained.write_text("[]\n")
    assert rows("/b").row(command("/b", "0")) is None
