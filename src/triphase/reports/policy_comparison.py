"""Policies compared on held-out prompts: win rate, mean gold, gain at equal length, best of n.

Pure functions of plain numbers. Every interval is a bootstrap over prompts (see intervals.py).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, log, sqrt

import numpy as np

from triphase.reports.intervals import SHARE, Interval, mean_over_prompts

ByPrompt = Mapping[str, Sequence[float]]
"""The values of one policy's samples, for each prompt id."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One response of one policy to a held-out prompt: a line of evaluation/samples.jsonl."""

    prompt_id: str
    prompt: str
    policy: str
    sample: int
    response: str
    finished: bool
    tokens: int
    gold: float | None
    score: float | None
    reference_kl: float | None


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """The score of a variant's own scorer for one response of the SFT policy: a line of evaluation/judges.jsonl."""

    judge: str
    prompt_id: str
    sample: int
    score: float | None


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Samples of ``low`` to ``high`` tokens: their number for each policy, and their mean gold (None without
    samples)."""

    low: int
    high: int
    first_count: int
    second_count: int
    first_mean: float | None
    second_mean: float | None

    @property
    def gain(self) -> float | None:
        """First mean minus second; None if one is missing."""
        if self.first_mean is None or self.second_mean is None:
            return None
        return self.first_mean - self.second_mean


@dataclass(frozen=True, slots=True)
class LengthStratified:
    """The gain in gold of one policy over another, in total and among responses of similar length.

    ``within`` is the mean of the bins' gains, each bin weighted by its share of the samples; the difference of
    ``total`` and ``within`` is due to the change of length. None if no bin contains samples of both.
    """

    bins: tuple[LengthBin, ...]
    total: float
    within: float | None


@dataclass(frozen=True, slots=True)
class BestOfN:
    """The gain of best-of-n sampling by the reward model: no training, the simplest use of a reward model."""

    n: int
    root_kl: float
    """√(log n − (n − 1)/n), an upper bound of the KL divergence to the sampled policy (arXiv 2401.01879)."""
    proxy: float
    gold: float


def by_prompt(
    samples: Iterable[Sample], policy: str, figure: Callable[[Sample], float | None]
) -> dict[str, list[float]]:
    """One value of one policy's samples, by prompt; samples without it are left out."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        value = figure(sample)
        if sample.policy == policy and value is not None:
            found[sample.prompt_id].append(value)
    return dict(found)


def win_rate(first: ByPrompt, second: ByPrompt, *, seed: int = 0) -> Interval | None:
    """How often ``first`` has the higher value: all pairs of samples of one prompt, ties ½, each prompt equally
    weighted.

    None if the two share no prompt.
    """
    return mean_over_prompts(list(win_shares(first, second).values()), seed=seed, within=SHARE)


def win_shares(first: ByPrompt, second: ByPrompt) -> dict[str, float]:
    """`win_rate` of each prompt that both answered, in the order of their ids."""
    shares = {}
    for prompt in sorted(first.keys() & second.keys()):
        ours, theirs = np.array(first[prompt])[:, None], np.array(second[prompt])[None, :]
        shares[prompt] = float(np.mean((ours > theirs) + 0.5 * (ours == theirs)))
    return shares


def means(values: ByPrompt) -> dict[str, float]:
    """The mean of each prompt."""
    return {prompt: float(np.mean(values[prompt])) for prompt in sorted(values)}


def mean_value(values: ByPrompt, *, seed: int = 0, within: tuple[float, float] | None = None) -> Interval | None:
    """The mean of the prompts' means."""
    return mean_over_prompts([float(np.mean(values[prompt])) for prompt in sorted(values)], seed=seed, within=within)


def gain(first: ByPrompt, second: ByPrompt, *, seed: int = 0) -> Interval | None:
    """Mean of ``first`` minus mean of ``second``, prompt by prompt: narrower than the difference of two intervals."""
    shared = sorted(first.keys() & second.keys())
    return mean_over_prompts([float(np.mean(first[key]) - np.mean(second[key])) for key in shared], seed=seed)


def length_stratified(
    first: Sequence[tuple[int, float]], second: Sequence[tuple[int, float]], *, bins: int = 4
) -> LengthStratified | None:
    """The gain of ``first`` over ``second`` at equal length. Each sample is (tokens, gold).

    Bins contain about equal numbers of all samples together; equal lengths are never split. Source: the stratification
    of Singhal et al. (arXiv 2310.03716). None if one of the two has no samples.
    """
    if not first or not second:
        return None
    lengths = np.array([length for length, _ in (*first, *second)])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))
    found = []
    for number in range(len(edges) + 1):
        ours, theirs = (
            [(length, gold) for length, gold in side if int(np.searchsorted(edges, length)) == number]
            for side in (first, second)
        )
        members = [length for length, _ in (*ours, *theirs)]
        if members:
            found.append(
                LengthBin(min(members), max(members), len(ours), len(theirs), _gold_mean(ours), _gold_mean(theirs))
            )
    weighed = [(each.first_count + each.second_count, each.gain) for each in found if each.gain is not None]
    count = sum(weight for weight, _ in weighed)
    within = sum(weight * value for weight, value in weighed) / count if count else None
    total = float(np.mean([gold for _, gold in first]) - np.mean([gold for _, gold in second]))
    return LengthStratified(tuple(found), total, within)


def best_of_n(scored: Mapping[str, Sequence[tuple[float, float]]]) -> list[BestOfN]:
    """Best of n by score, for n = 1, 2, 4 … up to the samples of each prompt. Each sample is (score, gold).

    The mean over all subsets of n samples, not one draw: of m samples in order of score, the i-th (from 1) is the best
    of C(i − 1, n − 1) of the C(m, n) subsets.
    """
    groups = [samples for samples in scored.values() if samples]
    curve = []
    for n in sizes_of(scored):
        proxy, gold = (float(value) for value in np.mean([best_of(group, n) for group in groups], axis=0))
        curve.append(BestOfN(n, sqrt(best_of_n_kl(n)), proxy, gold))
    return curve


def sizes_of(scored: Mapping[str, Sequence[tuple[float, float]]]) -> list[int]:
    """1, 2, 4 … up to the number of samples that each prompt has."""
    most = min((len(samples) for samples in scored.values() if samples), default=0)
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]


def best_of(samples: Sequence[tuple[float, float]], n: int) -> tuple[float, float]:
    """Mean (score, gold) of the sample with the best score among n, over all subsets of n of one prompt's samples."""
    ordered, subsets = sorted(samples, key=lambda sample: sample[0]), comb(len(samples), n)
    chances = [comb(place, n - 1) / subsets for place in range(len(ordered))]
    proxy, gold = (
        sum(chance * sample[figure] for chance, sample in zip(chances, ordered, strict=True)) for figure in (0, 1)
    )
    return proxy, gold


def best_of_n_kl(n: int) -> float:
    """log n − (n − 1)/n: an upper bound of the KL divergence of best-of-n from the sampled policy (arXiv
    2401.01879)."""
    return log(n) - (n - 1) / n


def _gold_mean(samples: Sequence[tuple[int, float]]) -> float | None:
    return float(np.mean([gold for _, gold in samples])) if samples else None
