"""Figures of a rollout by hand."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from triphase.phases.experience import Experience
from triphase.phases.rollout_metrics import (
    Excerpt,
    Means,
    common_opening,
    correlation,
    deviation,
    distinct_bigrams,
    figures_of,
    perplexity,
    repeated_bigrams,
    within_prompts,
)
from triphase.phases.trunk_states import TrunkStates
from triphase.records.types import Message, Prompt
from triphase.rewards.types import Scores


def test_a_rollout_by_hand() -> None:
    """Two responses of one and three tokens; what stands behind the first is padding, and counts in nothing."""
    mask = torch.tensor([[True, False, False], [True, True, True]])
    scores, golds, witness = [1.0, 4.0], [2.0, 6.0], (5.0, 3.0)
    batch: Any = SimpleNamespace(response_mask=mask, response_lengths=mask.sum(1))
    experience = Experience(
        batch=batch,
        boundary=TrunkStates(torch.empty(0), {}),
        minibatches=[],
        scores=torch.tensor(scores),
        values=None,
        logprobs=torch.tensor([[-9.0, 7.0, 7.0], [-9.0, -9.0, -9.0]]),
        reference_logprobs=torch.tensor([[-1.0, 7.0, 7.0], [-2.0, -3.0, -2.0]]),
        entropy=torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 2.0]]),
        scored=Scores((1.0, 4.0), monitors={"witness_score": witness}),
    )
    advantages: Any = SimpleNamespace(returns=torch.tensor([[4.0, 99.0, 99.0], [1.0, 2.0, 1.0]]))
    texts = ("a b c d e", "z a b c d z a")
    prompts = [Prompt(name, (Message("user", "x"),)) for name in "pq"]
    samples = [
        Excerpt(prompt, text, finished, score, gold, moved, tokens)
        for prompt, text, finished, score, gold, moved, tokens in zip(
            prompts, texts, (True, False), scores, golds, (0.0, 6.0), (1, 3), strict=True
        )
    ]
    expected = {
        "proxy_score": 2.5, "score_deviation": 1.5, "reference_kl_deviation": 3.0, "entropy": 5 / 4,
        "entropy_deviation": 0.5, "mean_length": 2.0, "length_deviation": 1.0, "eos_rate": 0.5, "mean_return": 2.0,
        "gold_score": 4.0, "gold_deviation": 2.0, "length_score_correlation": 1.0, "length_gold_correlation": 1.0,
        "distinct_2": 6 / 10, "repeated_2": 1 / 12, "repeated_2_deviation": 1 / 12, "self_similarity": 3 / 8,
        "common_opening": 1 / 2,
        "self_similarity_deviation": 1 / 8, "reference_perplexity": math.exp(8 / 4), "witness_score": 4.0,
        "reference_kl": (-8 - 7 - 6 - 7) / 2, "reference_kl_per_token": (-8 - 7 - 6 - 7) / 4,
        "witness_score_deviation": 1.0, "witness_score_correlation": -1.0,
    }  # fmt: skip
    found = figures_of(experience, advantages, samples)
    assert found == pytest.approx({f"ppo/{name}": value for name, value in expected.items()})


def test_an_uneven_rollout_by_hand() -> None:
    """Three responses of 1, 3 and 4 tokens, the first two to one prompt: no two ways to divide or pair are equal."""
    mask = torch.arange(4) < torch.tensor([[1], [3], [4]])
    scores, golds, witness = (1.0, 4.0, 0.0), (4.0, 2.0, 9.0), (5.0, 3.0, 7.0)
    zeros = torch.zeros(3, 4)
    experience = Experience(
        batch=SimpleNamespace(response_mask=mask, response_lengths=mask.sum(1)),  # type: ignore[arg-type]
        boundary=TrunkStates(torch.empty(0), {}),
        minibatches=[],
        scores=torch.tensor(scores),
        values=None,
        logprobs=torch.tensor([[1.0, 9, 9, 9], [1, 1, 0, 9], [0, 3, 1, -1]]),
        reference_logprobs=zeros,
        entropy=zeros,
        scored=Scores(scores, monitors={"witness_score": witness}),
    )
    prompts = [Prompt(name, (Message("user", "x"),)) for name in "ppq"]
    told = zip(prompts, scores, golds, (1.0, 2.0, 3.0), (1, 3, 4), strict=True)
    samples = [Excerpt(prompt, "", True, score, gold, moved, tokens) for prompt, score, gold, moved, tokens in told]
    advantages: Any = SimpleNamespace(returns=zeros)
    found = figures_of(experience, advantages, samples)
    # Distances from the mean, times three: lengths -5, 1, 4; scores -2, 7, -5; golds -3, -9, 12; witness 0, -6, 6.
    expected = {
        "reference_kl": 6 / 3,
        "reference_kl_per_token": 6 / 8,
        "length_score_correlation": -3 / math.sqrt(42 * 78),
        "length_gold_correlation": 54 / math.sqrt(42 * 234),
        "length_score_correlation_within": 1.0,  # -1, 1, 0 and -3/2, 3/2, 0
        "witness_score_correlation": -72 / math.sqrt(72 * 78),
        "mean_length": 8 / 3,
    }
    assert {name: found[f"ppo/{name}"] for name in expected} == pytest.approx(expected)


def test_a_perplexity_beyond_all_numbers_ends_no_run() -> None:
    """At a temperature of 0.001 a token whose logit is 1 below the best has a log-probability of −1000."""
    assert perplexity(math.log(0.25)) == pytest.approx(4.0)
    assert perplexity(-1000.0) == math.inf


def test_means_leave_out_what_is_not_finite_and_keep_maxima() -> None:
    means = Means()
    means.add({"loss": 1.0, "ratio_max": 1.5, "norm": math.inf})
    means.add({"loss": 2.0, "ratio_max": 1.2, "norm": 3.0})
    assert means.means() == {"loss": 1.5, "ratio_max": 1.5, "norm": 3.0}


def test_correlation_by_hand_and_absent_where_one_side_does_not_vary() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert correlation([2, 2], [1, 5]) is None and correlation([1, 2], [3, 3]) is None
    assert correlation([1, 2, 3], [0.1] * 3) is None and correlation([0.1] * 3, [1, 2, 3]) is None  # by rounding, too


def test_values_within_prompts_by_hand() -> None:
    assert within_prompts("aabac", [1.0, 3.0, 9.0, 5.0, 7.0]) == [-2.0, 0.0, 0.0, 2.0, 0.0]
    # Across prompts the longer responses have the lower scores, within each the higher ones.
    lengths, scores = (within_prompts("ppqq", each) for each in ([9.0, 8.0, 2.0, 1.0], [1.0, 0.0, 6.0, 5.0]))
    assert correlation(lengths, scores) == pytest.approx(1)
    assert within_prompts("aaa", [0.1] * 3) == [0.0] * 3


def test_distinct_bigrams_by_hand() -> None:
    assert distinct_bigrams(["a b a b", "A B"]) == pytest.approx(2 / 4)
    assert distinct_bigrams(["word", ""]) is None


def test_the_most_common_opening_by_hand() -> None:
    texts = ["Dear friend", "dear all", "Dear, dear", "so it goes", "well", ""]
    assert common_opening(texts) == 3 / 5  # of those with a word, whatever its case
    assert common_opening(["", " "]) is None


def test_repeated_bigrams_and_deviations_by_hand() -> None:
    assert repeated_bigrams("a b a b A b") == pytest.approx(3 / 5)  # ab ba | ab ba ab
    assert repeated_bigrams("a b c") == repeated_bigrams("a") == repeated_bigrams("") == 0
    assert deviation([1, 3]) == 1 and deviation([4]) == 0
