"""The simulation of scale reproduces the data that it was fitted to, and limits that were not used in the fit."""

import itertools
from dataclasses import replace

import pytest
from benchmarks.scale import published, rows_of
from benchmarks.scale_model import MEASURED, SHAPES, Job, Shape, Shares, cards_for, fitted, iteration, one_ahead

from triphase.planning.machine import CARDS, Card

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


ROUND = Shape(1e9, 10, 1000, 100)
SMALL_JOB = Job(100, 300, 200, 250, epochs=2, minibatches=4, microbatch_tokens=2000, rank=16)
PLAIN = Shares(update=0.5, decode=0.5, layer=1e-4, row=1e-5, call=0.3, microbatch=0.05)


def card(memory: float = 80e9, link: float = 1e11) -> Card:
    return Card("round", memory, 1e15, 1e12, link)


def test_generation_by_hand() -> None:
    """A row keeps 2 numbers of 2 bytes of 10·100 for each of 500 tokens: 2 MB; weights are 2 GB."""
    alone = iteration(ROUND, SMALL_JOB, card(), 1, PLAIN)  # 2.2 GB a step at 0.5 TB/s; a prompt pass of 6e13 operations
    assert alone.generation == pytest.approx(0.3 + 0.12 + 250 * 4.4e-3)
    # Two cards with one model: half is read, and 10 layers send 2·(2 numbers of 2 bytes) of 1000 for each row.
    two = iteration(ROUND, SMALL_JOB, card(3e9), 2, PLAIN)
    assert two.together == 2 and two.generation == pytest.approx(0.3 + 0.06 + 250 * (2.2e-3 + 8e-6 * 10))
    # There is room for 40 rows beside the weights: three waves of 34.
    waves = iteration(ROUND, SMALL_JOB, card(2.312e9), 1, PLAIN)
    assert waves.generation == pytest.approx(3 * (0.3 + 0.0408 + 250 * 2.068e9 / 0.5e12))
    slow = iteration(ROUND, SMALL_JOB, card(), 1, replace(PLAIN, layer=1e-3))  # the launches take longer than reading
    assert slow.generation == pytest.approx(0.3 + 0.12 + 250 * (1e-2 + 1e-3))


def test_training_by_hand() -> None:
    """50,000 tokens: 0.2 s a forward pass of one card; 25 rows of 500 a minibatch are 7 microbatches."""
    alone = iteration(ROUND, SMALL_JOB, card(), 1, PLAIN)
    assert alone.scoring == pytest.approx(3 * 0.2 + 28 * 0.05)
    assert alone.update == pytest.approx(2 * (0.4 + 28 * 0.05)) and alone.network == 0.0
    three = iteration(ROUND, SMALL_JOB, card(), 3, PLAIN)  # 9 rows a card, so that 108 are computed for 100
    assert three.scoring == pytest.approx(3 * 0.2 / 3 * 1.08 + 12 * 0.05)
    assert three.update == pytest.approx(2 * (0.4 / 3 * 1.08 + 12 * 0.05))
    full = iteration(ROUND, replace(SMALL_JOB, full=True), card(), 3, PLAIN)
    assert full.scoring == pytest.approx(4 * 0.2 / 3 * 1.08 + 12 * 0.05)
    assert full.update == pytest.approx(2 * (1.6 / 3 * 1.08 + 12 * 0.05))


def test_what_is_sent_by_hand() -> None:
    """A ring sends twice (N − 1)/N of what is summed; adapters have 14·16·1000·10·1.7 float32 numbers."""
    adapter = 4 * 14 * 16 * 1000 * 10 * 1.7
    summed = 2 * 4 * 2 * adapter * 2 / 3  # 2 epochs of 4 minibatches
    three = iteration(ROUND, SMALL_JOB, card(), 3, PLAIN)
    assert three.network == pytest.approx((summed + adapter) / 1e11)
    # Where the weights do not fit, each of 12 passes gathers two thirds of 2 GB: thrice in scoring, 2·2 in updates.
    sharded = iteration(ROUND, SMALL_JOB, card(3e9), 3, PLAIN)
    assert sharded.network == pytest.approx((summed + 12 * 7 * 2e9 * 2 / 3 + adapter) / 1e11)
    between = iteration(ROUND, SMALL_JOB, card(link=9e11), 16, PLAIN)  # eight adapters of 50 GB/s
    assert between.network == pytest.approx((2 * 4 * 2 * adapter * 15 / 16 + adapter) / 4e11)
    full = iteration(ROUND, replace(SMALL_JOB, full=True), card(), 3, PLAIN)  # gradients of two models in bfloat16
    gathered = 12 * (4 + 2 * 2 * 2) * 2e9 * 2 / 3
    assert full.network == pytest.approx((2 * 4 * 2 * 2 * 2e9 * 2 / 3 + gathered + 2e9) / 1e11)
