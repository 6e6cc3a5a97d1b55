"""The statistics of a run, computed once from its contents: for the page and for summary.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from triphase.monitoring.alarm_rules import limits_for
from triphase.monitoring.alarms import Alarm, Limits, find_alarms, with_samples
from triphase.monitoring.metrics import Row
from triphase.monitoring.samples import FILE_NAME as SAMPLES
from triphase.records.files import read_json_lines
from triphase.reports.chance_check import ChanceVerdict, chance_verdict
from triphase.reports.contents import RunContents
from triphase.reports.diversity import Diversity, diversity_of
from triphase.reports.gold_course import Course, course_of
from triphase.reports.intervals import Interval
from triphase.reports.policy_comparison import (
    BestOfN,
    LengthStratified,
    Sample,
    best_of_n,
    by_prompt,
    gain,
    length_stratified,
    mean_value,
    win_rate,
)
from triphase.reports.reward_quality import (
    Reliability,
    accuracy,
    length_correlation,
    like_length,
    longer_wins,
    reliability,
)
from triphase.reports.scored_by import has_own_scorer, uses_reward_model
from triphase.reports.seeds import SeedFindings, find_over_seeds, scored, seed_of
from triphase.reports.temperature import TemperatureScaling, temperature_scaling
from triphase.settings.phase_names import ppo_phase, variant_of


@dataclass(frozen=True, slots=True)
class PolicyFindings:
    """One policy on the held-out prompts, compared with the SFT policy (None for that policy itself, or without
    gold)."""

    name: str
    prompts: int
    samples: int
    gold: Interval | None
    gold_gain: Interval | None
    gold_win_rate: Interval | None
    proxy: Interval | None
    proxy_gain: Interval | None
    start_deviation: float | None
    """Of the scores of the start's samples, in the unit of ``proxy_gain``; None if they do not differ."""
    length: LengthStratified | None
    reference_kl: float | None
    mean_length: float
    eos_rate: float
    length_ratio: float | None = None
    """Mean length divided by that of the reference's responses; None for the reference, and if those are empty."""
    diversity: Diversity | None = None

    @property
    def gain_in_deviations(self) -> float | None:
        """The gain in score, in standard deviations of the start's scores; None if one is unknown."""
        if self.proxy_gain is None or self.start_deviation is None:
            return None
        return self.proxy_gain.value / self.start_deviation


@dataclass(frozen=True, slots=True)
class RewardFindings:
    """The reward model on held-out comparisons."""

    pairs: int
    accuracy: Interval | None
    longer_wins: Interval | None
    noise_ceiling: float | None
    chance: ChanceVerdict | None
    """Whether it is better than chance and than "longer wins"; None if nothing was compared."""
    reliability: Reliability | None
    length_correlation: Interval | None
    like_length: Interval | None = None
    """Accuracy among comparisons of responses of nearly the same length."""
    like_length_pairs: int = 0
    temperature: TemperatureScaling | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One iteration of PPO: √KL from the reference, proxy and gold (None if unknown)."""

    iteration: int
    root_kl: float
    proxy: float
    gold: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """All statistics of a run."""

    reward: RewardFindings
    policies: Mapping[str, PolicyFindings]
    alarms: Mapping[str, list[Alarm]]
    """By run: ``ppo``, then ``arm:NAME``."""
    paths: Mapping[str, list[Point]]
    """By run, as ``alarms``."""
    courses: Mapping[str, Course]
    """By run, as ``alarms``; of those whose gold is known."""
    best_of_n: list[BestOfN]
    gold_scale: tuple[float, float] | None
    """Mean and standard deviation of gold among the SFT policy's held-out samples."""
    seeds: SeedFindings | None = None
    """Over the runs with other seeds, if there are any."""

    @property
    def course(self) -> Course | None:
        """Of the main run, by gold."""
        return self.courses.get("ppo")


def find(run: RunContents) -> Findings:
    """The statistics of a run."""
    rows = run.ppo_runs
    sft = scored(run.samples)
    return Findings(
        reward=_reward_findings(run),
        policies={name: _policy_findings(run, name) for name in run.policies},
        alarms={name: _alarms(run, name, found) for name, found in rows.items() if found},
        paths={name: optimization_path(found) for name, found in rows.items() if found},
        courses={name: course for name, each in rows.items() if (course := course_of(each)) is not None},
        best_of_n=best_of_n(sft),
        gold_scale=_scale([gold for samples in sft.values() for _, gold in samples]),
        seeds=_over_seeds(run),
    )


def _alarms(run: RunContents, name: str, rows: Sequence[Row]) -> list[Alarm]:
    """The alarms of a PPO run, each with samples of its iteration."""
    found = find_alarms(rows, _limits(run, name))
    if not found or run.directory is None:
        return found
    return with_samples(found, read_json_lines(run.directory / ppo_phase(variant_of(name)) / SAMPLES))


def optimization_path(rows: Sequence[Row]) -> list[Point]:
    """√KL, proxy and gold of each iteration. A KL estimate below 0 (possible near the reference) counts as 0."""
    return [
        Point(row["step"], sqrt(max(0.0, row["ppo/reference_kl"])), row["ppo/proxy_score"], row.get("ppo/gold_score"))
        for row in rows
        if "ppo/reference_kl" in row and "ppo/proxy_score" in row
    ]


def _reward_findings(run: RunContents) -> RewardFindings:
    ceiling = (run.labeling or {}).get("noise_ceiling")
    scale, alike = float((run.calibration or {}).get("standard_deviation", 1.0)), like_length(run.pairs)
    return RewardFindings(
        pairs=len(run.pairs),
        accuracy=accuracy(run.pairs, seed=run.seed),
        longer_wins=longer_wins(run.pairs, seed=run.seed),
        noise_ceiling=None if ceiling is None else float(ceiling),
        chance=chance_verdict(run.pairs, seed=run.seed),
        reliability=reliability(run.pairs, scale=scale),
        length_correlation=length_correlation(run.pairs, seed=run.seed),
        like_length=accuracy(alike, seed=run.seed),
        like_length_pairs=len(alike),
        temperature=temperature_scaling(run.pairs, scale=scale, seed=run.seed),
    )


def _policy_findings(run: RunContents, name: str) -> PolicyFindings:
    own = [sample for sample in run.samples if sample.policy == name]
    gold = by_prompt(run.samples, name, lambda sample: sample.gold)
    proxy = by_prompt(run.samples, name, lambda sample: sample.score)
    other = "sft" if name != "sft" else ""
    other_gold = by_prompt(run.samples, other, lambda sample: sample.gold)
    other_proxy = run.baselines.get(name) or {}
    if not other_proxy and not has_own_scorer(run.settings, name):  # another scorer's scores are no baseline
        other_proxy = by_prompt(run.samples, other, lambda sample: sample.score)
    divergences = [sample.reference_kl for sample in own if sample.reference_kl is not None]
    return PolicyFindings(
        name=name,
        prompts=len({sample.prompt_id for sample in own}),
        samples=len(own),
        gold=mean_value(gold, seed=run.seed),
        gold_gain=gain(gold, other_gold, seed=run.seed),
        gold_win_rate=win_rate(gold, other_gold, seed=run.seed),
        proxy=mean_value(proxy, seed=run.seed),
        proxy_gain=gain(proxy, other_proxy, seed=run.seed),
        start_deviation=(_scale([score for scores in other_proxy.values() for score in scores]) or (0.0, None))[1],
        length=length_stratified(_lengths(run.samples, name), _lengths(run.samples, other)),
        reference_kl=float(np.mean(divergences)) if divergences else None,
        mean_length=float(np.mean([sample.tokens for sample in own])),
        eos_rate=float(np.mean([sample.finished for sample in own])),
        length_ratio=_length_ratio(own, [sample for sample in run.samples if sample.policy == other]),
        diversity=diversity_of(run.samples, name, seed=run.seed),
    )


def _lengths(samples: Sequence[Sample], policy: str) -> list[tuple[int, float]]:
    return [(sample.tokens, sample.gold) for sample in samples if sample.policy == policy and sample.gold is not None]


def _length_ratio(own: Sequence[Sample], other: Sequence[Sample]) -> float | None:
    total = sum(sample.tokens for sample in other)
    return float(np.mean([sample.tokens for sample in own])) / (total / len(other)) if total else None


def _over_seeds(run: RunContents) -> SeedFindings | None:
    runs = (run, *run.others)
    return find_over_seeds(runs, run.varied, [seed_of(each, run.varied) for each in runs]) if run.others else None


def _scale(golds: Sequence[float]) -> tuple[float, float] | None:
    deviation = float(np.std(golds)) if golds else 0.0
    return (float(np.mean(golds)), deviation) if deviation > 0 else None


def _limits(run: RunContents, name: str) -> Limits:
    ppo = run.settings.get("ppo") or {}
    variant = variant_of(name)
    if variant is not None:
        ppo = ppo | ((run.settings.get("variants") or {}).get(variant) or {})
    by_model = uses_reward_model(run.settings, variant)
    guards = run.settings.get("guards") or {}
    known = "false_alarm_rate" in guards  # alarms of older versions were raised without it
    limits = limits_for(
        ppo.get("kl_budget"),
        calibrated=bool(run.calibration) and by_model,
        false_alarms=(guards["false_alarm_rate"], ppo["iterations"]) if known else None,
        looks=guards.get("looks", 1),
    )
    return replace(limits, variant=variant)
