"""The simulation of scale: what it was fitted on comes out, and limits that follow without it."""

import itertools
from dataclasses import replace

import pytest
from benchmarks.scale import published, rows_of
from benchmarks.scale_model import MEASURED, SHAPES, Job, cards_for, fitted, iteration, one_ahead

from triphase.planning.machine import CARDS

H100, H200 = CARDS["h100"], CARDS["h200"]
# As benchmarks.gpu measures it: 64 episodes of 128 + 128 tokens, two epochs.
MEASURED_JOB = Job(64, 128, 128, 128, epochs=2, minibatches=1)


@pytest.mark.parametrize(("episodes", "tokens_per_second"), [(8, 2102), (64, 12945), (256, 32137)])
def test_generation_comes_out_as_it_was_measured(episodes: int, tokens_per_second: float) -> None:
    found = iteration(SHAPES["1B"], replace(MEASURED_JOB, episodes=episodes), H200, 1)
    assert episodes * 128 / found.generation == pytest.approx(tokens_per_second, rel=0.25)


def test_an_iteration_comes_out_as_it_was_measured() -> None:
    wide = iteration(SHAPES["1B"], MEASURED_JOB, H200, 1)
    narrow = iteration(SHAPES["1B"], replace(MEASURED_JOB, microbatch_tokens=4096), H200, 1)
    assert wide.update == pytest.approx(0.64, rel=0.03) and narrow.update == pytest.approx(1.0, rel=0.03)
    assert wide.total == pytest.approx(1.80, rel=0.1)


def test_more_cards_are_never_slower_and_never_more_than_so_many_times_as_fast() -> None:
    for name in SHAPES:
        rows = rows_of(name, Job(), H100)
        for before, after in itertools.pairwise(rows):
            assert after["seconds"] <= before["seconds"] * 1.001
            assert after["seconds"] >= before["seconds"] / 2 * 0.999 or name == "70B"
            assert after["use"] <= before["use"] + 0.02
        assert rows[0]["gpus"] == cards_for(SHAPES[name], H100) and rows[0]["use"] == 1.0


def test_the_best_division_of_cards_is_no_slower_than_any_other() -> None:
    seconds, sampling = one_ahead(SHAPES["8B"], Job(), H100, 16)
    parts = iteration(SHAPES["8B"], Job(), H100, 16)
    assert 0 < sampling < 16 and seconds < parts.total
    assert seconds >= max(parts.generation, parts.update)  # no part is faster on fewer cards
    assert one_ahead(SHAPES["8B"], Job(), H100, 1) == (float("inf"), 0)


def test_a_model_of_70_billion_does_not_fit_on_one_card_and_one_of_8_does() -> None:
    assert cards_for(SHAPES["8B"], H100) == 1 and cards_for(SHAPES["70B"], H100) == 4


def test_smaller_shares_take_longer_where_shares_count() -> None:
    slow = iteration(SHAPES["70B"], Job(), H100, 8, fitted(MEASURED, 2.0))
    fast = iteration(SHAPES["70B"], Job(), H100, 8)
    assert fast.update < slow.update <= 2 * fast.update and slow.network == fast.network


def test_what_was_published_is_predicted_within_the_stated_factor() -> None:
    found = published()
    fits = [each for each in found if abs(each["error"]) < 1e-6]
    assert [each["system"] for each in fits] == ["OpenRLHF", "NeMo-Aligner"]
    assert all(1 / 2.5 < 1 + each["error"] < 2.5 for each in found)
