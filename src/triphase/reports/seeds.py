"""A run with several seeds: its policies over all of them, with intervals that include seeds as well as prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import TYPE_CHECKING

from triphase.monitoring.metrics import Row
from triphase.reports.intervals import Interval
from triphase.reports.policy_comparison import (
    ByPrompt,
    Sample,
    best_of,
    best_of_n_kl,
    by_prompt,
    means,
    sizes_of,
    win_shares,
)
from triphase.reports.scored_by import has_own_scorer
from triphase.reports.two_way_intervals import interval_over_seeds, pooled, pooled_share

if TYPE_CHECKING:
    from triphase.reports.contents import RunContents

CURVES = ("ppo/proxy_score", "ppo/gold_score", "ppo/reference_kl", "ppo/mean_length")


@dataclass(frozen=True, slots=True)
class SeedPolicy:
    """One policy over all seeds; the last field has the win rate of each, None without gold."""

    name: str
    gold: Interval | None
    gold_win_rate: Interval | None
    gold_gain: Interval | None
    proxy_gain: Interval | None
    reference_kl: Interval | None
    tokens: Interval | None
    by_seed: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class SeedBestOfN:
    """Best of n of the SFT policy's samples over all seeds, as gains over one sample."""

    n: int
    root_kl: float
    proxy_gain: Interval | None
    gold_gain: Interval | None


@dataclass(frozen=True, slots=True)
class Band:
    """A metric over iterations: the mean of all seeds, and its 95 % interval."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SeedFindings:
    """The results of several seeds of one run.

    Attributes:
        varied: the setting: `seed`, or `ppo.seed` if the phases before PPO are shared.
        seeds: its values.
        policies: all but the SFT policy, each compared with it.
        against: (variant, variant) → how often gold prefers the first.
        best_of_n: best of n, without training.
        bands: metric → run (`ppo`, `arm:NAME`) → its course.
    """

    varied: str
    seeds: tuple[int, ...]
    policies: tuple[SeedPolicy, ...]
    against: Mapping[tuple[str, str], Interval]
    best_of_n: tuple[SeedBestOfN, ...]
    bands: Mapping[str, Mapping[str, Band]]

    @property
    def ppo(self) -> SeedPolicy | None:
        """The main PPO policy."""
        return next((policy for policy in self.policies if policy.name == "ppo"), None)


def find_over_seeds(runs: "Sequence[RunContents]", varied: str, seeds: Sequence[int]) -> SeedFindings | None:
    """The statistics of runs that differ in their seed alone; None unless at least two are evaluated."""
    whole = [(run, seed) for run, seed in zip(runs, seeds, strict=True) if {"sft", "ppo"} <= set(run.policies)]
    if len(whole) < 2:
        return None
    found = [run for run, _ in whole]
    names = [name for name in found[0].policies if name != "sft" and all(name in run.policies for run in found)]
    against = {
        (first, second): rate
        for first, second in combinations(names, 2)
        if (rate := pooled_share([win_shares(_gold(run, first), _gold(run, second)) for run in found]))
    }
    return SeedFindings(
        varied,
        tuple(seed for _, seed in whole),
        tuple(_policy(found, name) for name in names),
        against,
        tuple(_best_of_n([scored(run.samples) for run in found])),
        {metric: bands for metric in CURVES if (bands := _bands(found, metric))},
    )


def seed_of(run: "RunContents", varied: str) -> int:
    """The value of the varied setting; `ppo.seed` defaults to that of the run."""
    own = (run.settings.get("ppo") or {}).get("seed") if varied == "ppo.seed" else None
    return int(own) if isinstance(own, int) else run.seed


def scored(samples: Sequence[Sample]) -> dict[str, list[tuple[float, float]]]:
    """(score, gold) of the SFT policy's samples, by prompt."""
    found: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        if sample.policy == "sft" and sample.score is not None and sample.gold is not None:
            found.setdefault(sample.prompt_id, []).append((sample.score, sample.gold))
    return found


def differences(first: ByPrompt, second: ByPrompt) -> dict[str, float]:
    """Mean of the first minus mean of the second, of each prompt that both have."""
    ours, theirs = means(first), means(second)
    return {prompt: ours[prompt] - theirs[prompt] for prompt in ours if prompt in theirs}


def best_of_gains(samples: Mapping[str, Sequence[tuple[float, float]]], n: int, figure: int) -> dict[str, float]:
    """The gain of best of n over one sample, by prompt: in score (``figure`` 0) or gold (1)."""
    return {prompt: best_of(group, n)[figure] - best_of(group, 1)[figure] for prompt, group in samples.items() if group}


def band_of(courses: Sequence[Sequence[Row]], metric: str) -> Band | None:
    """A metric over the iterations that all seeds have; None if there are none."""
    tables = [{int(row["step"]): float(row[metric]) for row in rows if metric in row} for rows in courses]
    steps = sorted(set(tables[0]).intersection(*tables)) if tables else []
    found = [interval_over_seeds([table[step] for table in tables]) for step in steps]
    whole = [each for each in found if each is not None]
    if not whole:
        return None
    return Band(
        tuple(steps),
        tuple(each.value for each in whole),
        tuple(each.value if each.low is None else each.low for each in whole),
        tuple(each.value if each.high is None else each.high for each in whole),
    )


def _policy(runs: "Sequence[RunContents]", name: str) -> SeedPolicy:
    wins = [win_shares(_gold(run, name), _gold(run, "sft")) for run in runs]

    def mean(figure: Callable[[Sample], float | None]) -> Interval | None:
        return pooled([means(by_prompt(run.samples, name, figure)) for run in runs])

    return SeedPolicy(
        name,
        gold=mean(lambda sample: sample.gold),
        gold_win_rate=pooled_share(wins),
        gold_gain=pooled([differences(_gold(run, name), _gold(run, "sft")) for run in runs]),
        proxy_gain=pooled([differences(_scores(run, name), _baseline(run, name)) for run in runs]),
        reference_kl=mean(lambda sample: sample.reference_kl),
        tokens=mean(lambda sample: float(sample.tokens)),
        by_seed=tuple(sum(shares.values()) / len(shares) if shares else None for shares in wins),
    )


def _gold(run: "RunContents", name: str) -> dict[str, list[float]]:
    return by_prompt(run.samples, name, lambda sample: sample.gold)


def _scores(run: "RunContents", name: str) -> dict[str, list[float]]:
    return by_prompt(run.samples, name, lambda sample: sample.score)


def _baseline(run: "RunContents", name: str) -> ByPrompt:
    """The SFT policy's samples as scored by a policy's scorer; empty if it has not scored them."""
    return run.baselines.get(name) or ({} if has_own_scorer(run.settings, name) else _scores(run, "sft"))


def _best_of_n(groups: Sequence[Mapping[str, Sequence[tuple[float, float]]]]) -> list[SeedBestOfN]:
    sizes = set(sizes_of(groups[0])).intersection(*map(sizes_of, groups)) if groups else set()
    return [
        SeedBestOfN(
            n,
            sqrt(best_of_n_kl(n)),
            *(pooled([best_of_gains(group, n, figure) for group in groups]) for figure in (0, 1)),
        )
        for n in sorted(sizes)
        if n > 1
    ]


def _bands(runs: "Sequence[RunContents]", metric: str) -> dict[str, Band]:
    found = {name: band_of([run.ppo_runs.get(name, []) for run in runs], metric) for name in runs[0].ppo_runs}
    return {name: band for name, band in found.items() if band is not None}
