"""What PPO reports of a rollout: samples, metrics, and the seconds of each part."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from string import punctuation

from triphase.models.roles import SharedModel
from triphase.monitoring.score_parts import PREFIX
from triphase.objectives.advantages import Advantages
from triphase.objectives.divergence import reference_kl
from triphase.objectives.masking import masked_mean
from triphase.objectives.proximal import explained_variance
from triphase.phases.experience import Experience
from triphase.phases.first_rollout import FirstRollout
from triphase.phases.ppo_state import PPOState
from triphase.records.types import Prompt
from triphase.rewards.model import WITNESS_SCORE
from triphase.rollouts.types import Generated

Gold = Callable[[str, str, bool], float]
"""A score that the reward model never sees: (prompt, response, finished) → number."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One episode, for display."""

    prompt: Prompt
    response: str
    finished: bool
    score: float
    gold: float | None
    reference_kl: float
    tokens: int
    score_parts: Mapping[str, float] = field(default_factory=dict)


class Clock:
    """Seconds of each part of an iteration."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End the part ``name``."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


class Means:
    """Means over the minibatches of an iteration (the maximum, for a maximum)."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Add the metrics of one minibatch; a value that is not finite is left out."""
        for name, value in figures.items():
            if math.isfinite(value):
                self._values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """The means so far."""
        return {
            name: max(values) if name.endswith("_max") else sum(values) / len(values)
            for name, values in self._values.items()
        }


def samples_of(
    shared: SharedModel,
    experience: Experience,
    prompts: Sequence[Prompt],
    generated: Sequence[Generated],
    gold: Gold | None,
) -> list[Excerpt]:
    """The episodes of a rollout, for display."""
    mask = experience.batch.response_mask
    moved = ((experience.logprobs - experience.reference_logprobs) * mask).sum(1).tolist()
    scores = experience.scores.tolist()
    found = []
    for row, (prompt, answer) in enumerate(zip(prompts, generated, strict=True)):
        text = shared.template.text(answer.ids)
        found.append(
            Excerpt(
                prompt,
                text,
                answer.finished,
                scores[row],
                None if gold is None else gold(prompt.text, text, answer.finished),
                moved[row],
                len(answer.ids),
                experience.scored.parts_of(row),
            )
        )
    return found


def figures_of(experience: Experience, advantages: Advantages, samples: Sequence[Excerpt]) -> dict[str, float]:
    """What PPO reports of a rollout besides its losses; undefined metrics are absent."""
    batch, mask = experience.batch, experience.batch.response_mask
    lengths = batch.response_lengths.tolist()
    scores = experience.scores.tolist()
    golds = [sample.gold for sample in samples if sample.gold is not None]
    values = experience.values
    explained = None if values is None else explained_variance(values, advantages.returns, mask)
    surprises = ((experience.entropy * mask).sum(1) / mask.sum(1)).tolist()
    repeated = [repeated_bigrams(sample.response) for sample in samples]
    alike = shared_with_others([(sample.prompt.id, sample.response) for sample in samples])
    ids = [sample.prompt.id for sample in samples]
    figures = {
        "ppo/proxy_score": float(experience.scores.mean()),
        "ppo/score_deviation": float(experience.scores.std(unbiased=False)),
        "ppo/reference_kl_deviation": deviation([sample.reference_kl for sample in samples]),
        "ppo/entropy": float(masked_mean(experience.entropy, mask)),
        "ppo/entropy_deviation": deviation(surprises),
        "ppo/mean_length": sum(lengths) / len(lengths),
        "ppo/length_deviation": deviation(lengths),
        "ppo/eos_rate": sum(sample.finished for sample in samples) / len(samples),
        "ppo/mean_return": float(masked_mean(advantages.returns, mask)),
        "ppo/gold_score": sum(golds) / len(golds) if golds else None,
        "ppo/gold_deviation": deviation(golds) if golds else None,
        "ppo/explained_variance": None if explained is None else float(explained),
        "ppo/length_score_correlation": correlation(lengths, scores),
        "ppo/length_gold_correlation": correlation(lengths, golds) if len(golds) == len(lengths) else None,
        "ppo/length_score_correlation_within": correlation(*(within_prompts(ids, each) for each in (lengths, scores))),
        "ppo/distinct_2": distinct_bigrams([sample.response for sample in samples]),
        "ppo/repeated_2": sum(repeated) / len(repeated),
        "ppo/repeated_2_deviation": deviation(repeated),
        "ppo/common_opening": common_opening([sample.response for sample in samples]),
        "ppo/self_similarity": sum(alike) / len(alike) if alike else None,
        "ppo/self_similarity_deviation": deviation(alike) if alike else None,
        "ppo/reference_perplexity": perplexity(float(masked_mean(experience.reference_logprobs, mask))),
    }
    figures |= {f"{PREFIX}{name}": mean for name, mean in experience.scored.part_means().items()}
    figures |= monitor_figures(experience.scored.monitors, scores)
    figures["ppo/reference_kl"] = float(reference_kl(experience.logprobs, experience.reference_logprobs, mask))
    figures["ppo/reference_kl_per_token"] = figures["ppo/reference_kl"] * len(samples) / sum(lengths)
    if experience.penalty_logprobs is not None:
        figures["ppo/penalty_kl"] = float(reference_kl(experience.logprobs, experience.penalty_logprobs, mask))
    return {name: value for name, value in figures.items() if value is not None}


def against_first_rollout(values: PPOState, iteration: int, experience: Experience) -> dict[str, float]:
    """The metrics of a rollout relative to the first one, which is stored in ``values``."""
    lengths, scores = experience.batch.response_lengths.tolist(), experience.scores.tolist()
    if iteration == 0:
        values.first_rollout = FirstRollout.of(lengths, scores)
    return {} if values.first_rollout is None else values.first_rollout.figures(lengths, scores)


def monitor_figures(monitors: Mapping[str, Sequence[float]], scores: Sequence[float]) -> dict[str, float | None]:
    """Metrics of a scorer's parts: mean and deviation of each, and the witness's correlation with the score."""
    figures: dict[str, float | None] = {}
    for name, values in monitors.items():
        figures |= {f"ppo/{name}": sum(values) / len(values), f"ppo/{name}_deviation": deviation(values)}
        if name == WITNESS_SCORE:
            figures["ppo/witness_score_correlation"] = correlation(values, scores)
    return figures


def perplexity(mean_logprob: float) -> float:
    """exp(−mean log-probability of a token); infinite beyond the largest number, as at a temperature near 0."""
    try:
        return math.exp(-mean_logprob)
    except OverflowError:
        return math.inf


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of the given values: √(mean of squared distances from the mean)."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation; None if one of the two does not vary."""
    if min(first) == max(first) or min(second) == max(second):
        return None
    count = len(first)
    mean_first, mean_second = sum(first) / count, sum(second) / count
    covariance = sum((a - mean_first) * (b - mean_second) for a, b in zip(first, second, strict=True))
    variance = sum((a - mean_first) ** 2 for a in first) * sum((b - mean_second) ** 2 for b in second)
    return covariance / math.sqrt(variance) if variance > 0 else None


def within_prompts(prompts: Sequence[str], values: Sequence[float]) -> list[float]:
    """The values less the mean of those of the same prompt, so that 0 stands for a prompt with a single one."""
    groups: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        groups.setdefault(prompt, []).append(value)
    # The mean of equal values can differ from them by rounding, and what is left would have a correlation.
    means = {
        prompt: group[0] if min(group) == max(group) else sum(group) / len(group) for prompt, group in groups.items()
    }
    return [value - means[prompt] for prompt, value in zip(prompts, values, strict=True)]


def distinct_bigrams(texts: Sequence[str]) -> float | None:
    """Distinct two-word sequences divided by all, over all texts together; None if there are none."""
    words_of = (text.lower().split() for text in texts)
    bigrams = [pair for words in words_of for pair in pairwise(words)]
    return len(set(bigrams)) / len(bigrams) if bigrams else None


def shared_with_others(answers: Sequence[tuple[str, str]]) -> list[float]:
    """For each response of at least four words, the share of its 4-grams that also occur in one to another prompt.

    ``answers`` maps each prompt's identifier to its responses.
    """
    sequences = [(prompt, four_words(text)) for prompt, text in answers]
    prompts: dict[tuple[str, ...], set[str]] = {}
    for prompt, found in sequences:
        for sequence in found:
            prompts.setdefault(sequence, set()).add(prompt)
    return [sum(len(prompts[each]) > 1 for each in found) / len(found) for _, found in sequences if found]


def common_opening(texts: Sequence[str]) -> float | None:
    """The largest share of the texts with a word that begin with the same one, in any case; None if there are none."""
    openings = Counter(words[0].strip(punctuation) for words in (text.lower().split() for text in texts) if words)
    return max(openings.values()) / openings.total() if openings else None


def four_words(text: str) -> set[tuple[str, ...]]:
    """The 4-grams of words of a text."""
    words = text.lower().split()
    return {tuple(words[place : place + 4]) for place in range(len(words) - 3)}


def repeated_bigrams(text: str) -> float:
    """The share of the two-word sequences of a text that occurred earlier in it; 0 if it has none."""
    distinct = distinct_bigrams([text])
    return 0.0 if distinct is None else 1 - distinct
