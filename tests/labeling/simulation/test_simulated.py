"""Simulated labelers: their agreement, their biases, and that nothing but the seed decides."""

import random
from itertools import combinations
from pathlib import Path

import pytest

from triphase.labeling.quality.agreement import agreement_by_pair, pairwise_agreement
from triphase.labeling.quality.labeler_quality import length_bias, position_bias
from triphase.labeling.simulation.simulated import EPOCH, SimulatedLabelers, simulate_rankings
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.store import Store, open_store


def gold(_prompt: str, response: str, _finished: bool) -> float:
    return float(response.split()[0])


def make(count: int, seed: int = 1, words: int = 1) -> list[tuple[Prompt, list[Response]]]:
    draw = random.Random(seed)
    made = []
    for number in range(count):
        prompt = Prompt(f"p{number}", (Message("user", f"question {number}"),), split="train")
        texts = [f"{draw.gauss(0, 1):.6f}" + " word" * draw.randrange(words) for _ in range(4)]
        made.append((prompt, [Response(f"p{number}-{k}", prompt.id, text, "m") for k, text in enumerate(texts)]))
    return made


def ranked_by_all(labelers: SimulatedLabelers, count: int, words: int = 1) -> list[Ranking]:
    return [labelers.rank(p, r, name) for p, r in make(count, words=words) for name in labelers.names]


def filled(path: Path, count: int = 60) -> Store:
    store = open_store(path)
    made = make(count)
    store.add_prompts(prompt for prompt, _ in made)
    store.add_responses(response for _, responses in made for response in responses)
    return store


def test_agreement_is_that_of_people() -> None:
    rankings = ranked_by_all(SimulatedLabelers(gold, 3), 500)
    overall = pairwise_agreement(rankings, resamples=10).value
    assert 0.70 <= overall.value <= 0.77
    by_pair = agreement_by_pair(rankings, resamples=10)
    careful = [found.value.value for pair, found in by_pair.items() if "simulated-4" not in pair]
    careless = [found.value.value for pair, found in by_pair.items() if "simulated-4" in pair]
    assert min(careful) > max(careless) + 0.05, "the careless labeler must stand out"


def test_ties_are_narrow_and_rare() -> None:
    rankings = ranked_by_all(SimulatedLabelers(gold, 3), 200)
    pairs = [(r.places[a], r.places[b]) for r in rankings for a, b in combinations(sorted(r.places), 2)]
    share = sum(one == other for one, other in pairs) / len(pairs)
    assert 0.03 < share < 0.15


def test_biases_are_there() -> None:
    labelers = SimulatedLabelers(lambda *_: 0.0, 3, noise_scale=0.3, lapse_share=0.0, careless_share=0.0)
    rankings = ranked_by_all(labelers, 500, words=40)
    words = {response.id: len(response.text.split()) for _, made in make(500, words=40) for response in made}
    assert length_bias(rankings, words).value > 0.6
    assert position_bias(rankings).value > 0.51


def test_no_noise_ranks_by_gold() -> None:
    labelers = SimulatedLabelers(gold, 3, noise_scale=0.0, lapse_share=0.0, careless_share=0.0)
    for prompt, responses in make(50):
        places = labelers.rank(prompt, responses, "simulated-1").places
        for one, other in combinations(responses, 2):
            difference = float(one.text) - float(other.text)
            if abs(difference) > 0.5:
                assert (places[one.id] < places[other.id]) == (difference > 0)


def test_order_shown_differs_between_labelers() -> None:
    rankings = ranked_by_all(SimulatedLabelers(gold, 3), 20)
    assert len({ranking.order_shown for ranking in rankings if ranking.prompt_id == "p0"}) > 1


def test_same_seed_same_rankings_and_resumable(tmp_path: Path) -> None:
    with filled(tmp_path / "one.sqlite") as one, filled(tmp_path / "two.sqlite") as two:
        added = simulate_rankings(one, SimulatedLabelers(gold, 3), overlap_share=0.25, seed=3)
        assert added == 60 + 15
        every = one.rankings()
        two.add_rankings(every[::3])  # as if it had been stopped in the middle
        assert simulate_rankings(two, SimulatedLabelers(gold, 3), overlap_share=0.25, seed=3) == added - len(every[::3])
        assert two.rankings() == every
        assert simulate_rankings(two, SimulatedLabelers(gold, 3), overlap_share=0.25, seed=3) == 0
        assert min(ranking.submitted_at for ranking in every) > EPOCH
        assert {len(one.rankings(f"p{number}")) for number in range(60)} == {1, 2}
    of_seed = {
        seed: [SimulatedLabelers(gold, seed).rank(*item, "simulated-1").places for item in make(20)] for seed in (3, 4)
    }
    assert of_seed[3] != of_seed[4]


def test_prompts_ranked_by_people_are_left_alone(tmp_path: Path) -> None:
    with filled(tmp_path / "store.sqlite", 10) as store:
        store.add_rankings([Ranking("mine", "p3", "ann", {"p3-0": 1, "p3-1": 2}, ("p3-0", "p3-1"), 1.0)])
        assert simulate_rankings(store, SimulatedLabelers(gold, 3), overlap_share=0.0, seed=3) == 9
        assert [ranking.labeler for ranking in store.rankings("p3")] == ["ann"]


def test_work_is_shared_and_every_pair_of_labelers_meets(tmp_path: Path) -> None:
    with filled(tmp_path / "store.sqlite") as store:
        simulate_rankings(store, SimulatedLabelers(gold, 3), overlap_share=0.5, seed=3)
        rankings = store.rankings()
        counts = [sum(r.labeler == name for r in rankings) for name in SimulatedLabelers(gold, 3).names]
        assert max(counts) - min(counts) <= 4
        assert len(agreement_by_pair(rankings, resamples=10)) == 6


def test_a_count_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        SimulatedLabelers(gold, 3, 0)
