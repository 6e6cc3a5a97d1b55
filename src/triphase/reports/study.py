"""The results of a study: its variants over seeds, best of n without training, and overoptimization."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from triphase.reports.contents import RunContents, read_run
from triphase.reports.file_shapes import shaped_rows
from triphase.reports.intervals import Interval
from triphase.reports.overoptimization import Fit, Rollouts, best_of_n_points, fit, path_of, ppo_points
from triphase.reports.policy_comparison import best_of_n_kl, by_prompt, means, sizes_of, win_shares
from triphase.reports.rounds import rounds_before
from triphase.reports.seeds import best_of_gains, differences
from triphase.reports.two_way_intervals import pooled, pooled_share

BEST_OF_N = "best-of-n.jsonl"
"""In the directory of a study's run: the score and gold of many responses of its SFT policy, one per line."""
ROLLOUTS = "ppo/samples.jsonl"
Scored = Mapping[str, Sequence[tuple[float, float]]]
_Read = tuple[Rollouts, bool, list[str]]
"""The rollouts of a run, whether gold is known, and its prompts in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A line of best-of-n samples."""

    prompt_id: str
    score: float | None
    gold: float | None


@dataclass(frozen=True, slots=True)
class RolloutRow(ScoredRow):
    """A line of a PPO run's samples."""

    iteration: int
    reference_kl: float | None


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run of a study: its variant, its seed, and its directory."""

    variant: str
    seed: int
    directory: Path


@dataclass(frozen=True, slots=True)
class Curve:
    """The mean over seeds of each iteration (or each n): √KL, gain in proxy, gain in gold (None without gold)."""

    root_kl: tuple[float, ...]
    proxy: tuple[float, ...]
    gold: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class VariantFindings:
    """One variant at its end on held-out prompts, and its path.

    Gains are in standard deviations of the SFT policy's held-out samples. ``over_first`` is the gain in gold over the
    study's first variant, seed by seed and prompt by prompt.
    """

    name: str
    about: str
    seeds: tuple[int, ...]
    win_rate: Interval | None
    gold_gain: Interval | None
    proxy_gain: Interval | None
    over_first: Interval | None
    reference_kl: Interval | None
    tokens: Interval | None
    curve: Curve | None
    fit: Fit | None


@dataclass(frozen=True, slots=True)
class BestOfNFindings:
    """Best of n of the SFT policy's samples by the score, without training. Without a gold score ``gold`` is empty."""

    sizes: tuple[int, ...]
    samples: int
    seeds: tuple[int, ...]
    proxy: tuple[Interval, ...]
    gold: tuple[Interval, ...]
    curve: Curve
    fit: Fit | None


@dataclass(frozen=True, slots=True)
class StudyFindings:
    """All of a study."""

    name: str
    variants: tuple[VariantFindings, ...]
    best_of_n: BestOfNFindings | None
    notes: tuple[str, ...]


def find_study(
    name: str, runs: Sequence[StudyRun], about: Mapping[str, str], notes: Sequence[str] = (), *, seed: int = 0
) -> StudyFindings:
    """The statistics of the finished runs of a study; variants in the order of ``about``, the first one is the
    reference of the others."""
    contents = {(run.variant, run.seed): (run, read_run(run.directory)) for run in runs}
    first = next(iter(about))
    rollouts = {run.directory: _rollouts(run.directory) for run in runs}
    baseline = {seed: content for (variant, seed), (_, content) in contents.items() if variant == first}
    variants = [
        _variant(
            name,
            about[name],
            [pair for (variant, _), pair in contents.items() if variant == name],
            baseline,
            rollouts,
            seed,
        )
        for name in about
        if any(variant == name for variant, _ in contents)
    ]
    best = _best_of_n([run for run in runs if run.variant == first], seed)
    return StudyFindings(name, tuple(variants), best, (*notes, *_notes_on(runs, rollouts)))


def _notes_on(runs: Sequence[StudyRun], rollouts: Mapping[Path, _Read | None]) -> Iterator[str]:
    """Caveats of the curves."""
    iterations: dict[str, list[int]] = {}
    for run in runs:
        if (found := rollouts[run.directory]) is None:
            yield f"{run.variant}, seed {run.seed}: {ROLLOUTS} has no scores; it is left out of the curves"
        else:
            iterations.setdefault(run.variant, []).append(len(np.unique(found[0].iteration)))
    for variant in dict.fromkeys(run.variant for run in runs if rounds_before(run.directory)):
        yield f"{variant}: each round has its own reward model, so the proxy jumps between them; compare the gold score"
    for variant, counts in iterations.items():
        if (least := min(counts)) < max(counts):
            yield f"{variant}: the curve has the first {least} of up to {max(counts)} iterations, which all seeds have"


def _variant(
    name: str,
    about: str,
    pairs: Sequence[tuple[StudyRun, RunContents]],
    baseline: Mapping[int, RunContents],
    rollouts: Mapping[Path, _Read | None],
    seed: int,
) -> VariantFindings:
    contents = [content for _, content in pairs]
    units = [(_spread(content, "gold"), _spread(content, "score")) for content in contents]
    wins = [win_shares(_values(content, "ppo", "gold"), _values(content, "sft", "gold")) for content in contents]
    over = [
        _scaled(differences(_values(content, "ppo", "gold"), _values(baseline[run.seed], "ppo", "gold")), gold)
        for (run, content), (gold, _) in zip(pairs, units, strict=True)
        if run.seed in baseline and baseline[run.seed] is not content
    ]
    courses = [(each, unit) for (run, _), unit in zip(pairs, units, strict=True) if (each := rollouts[run.directory])]
    curve, fitted = _course([each for each, _ in courses], [unit for _, unit in courses], seed)
    return VariantFindings(
        name,
        about,
        seeds=tuple(run.seed for run, _ in pairs),
        win_rate=pooled_share(wins, seed=seed),
        gold_gain=_gain(contents, "gold", [gold for gold, _ in units], seed),
        proxy_gain=_gain(contents, "score", [score for _, score in units], seed),
        over_first=pooled(over, seed=seed) if over else None,
        reference_kl=pooled([means(_values(content, "ppo", "reference_kl")) for content in contents], seed=seed),
        tokens=pooled([means(_values(content, "ppo", "tokens")) for content in contents], seed=seed),
        curve=curve,
        fit=fitted,
    )


def _gain(contents: Sequence[RunContents], figure: str, units: Sequence[float], seed: int) -> Interval | None:
    gains = [
        _scaled(differences(_values(content, "ppo", figure), _values(content, "sft", figure)), unit)
        for content, unit in zip(contents, units, strict=True)
    ]
    return pooled(gains, seed=seed)


def _values(run: RunContents, policy: str, figure: str) -> dict[str, list[float]]:
    return by_prompt(run.samples, policy, lambda sample: getattr(sample, figure))


def _spread(run: RunContents, figure: str) -> float:
    """The standard deviation of the SFT policy's samples: the unit of gains; 1 if it has none."""
    values = [value for values in _values(run, "sft", figure).values() for value in values]
    return float(np.std(values)) or 1.0 if values else 1.0


def _scaled(values: Mapping[str, float], unit: float) -> dict[str, float]:
    return {prompt: value / unit for prompt, value in values.items()}


def _rollouts(directory: Path) -> _Read | None:
    """The rollouts of a run; for the last of several rounds, those of all rounds, one after the other."""
    rows: list[dict[str, Any]] = []
    for each in (*rounds_before(directory), directory):
        begun = 1 + max((row["iteration"] for row in rows), default=-1)
        found_there = shaped_rows(each / ROLLOUTS, RolloutRow)
        known = (row for row in found_there if row["score"] is not None and row["reference_kl"] is not None)
        rows += [{**row, "iteration": begun + row["iteration"]} for row in known]
    if not rows:
        return None
    prompts = sorted({row["prompt_id"] for row in rows})
    number = {prompt: place for place, prompt in enumerate(prompts)}
    has_gold = all(row["gold"] is not None for row in rows)

    def column(key: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
        return np.array([row[key] for row in rows], dtype=np.float64)

    found = Rollouts(
        iteration=np.array([row["iteration"] for row in rows]),
        prompt=np.array([number[row["prompt_id"]] for row in rows]),
        reference_kl=column("reference_kl"),
        proxy=column("score"),
        gold=column("gold") if has_gold else np.zeros(len(rows)),
    )
    return found, has_gold, prompts


def _course(found: Sequence[_Read], units: Sequence[tuple[float, float]], seed: int) -> tuple[Curve | None, Fit | None]:
    """The mean path of the seeds that have rollouts, and the form fitted to their gold; ``units`` of gold and proxy."""
    if not found:
        return None, None
    scales = [gold for gold, _ in units]
    paths = [path_of(each, gold, of_proxy=proxy) for (each, _, _), (gold, proxy) in zip(found, units, strict=True)]
    length = min(len(path.root_kl) for path in paths)
    has_gold = all(gold for _, gold, _ in found)
    root_kl, proxy, gold = (
        tuple(float(value) for value in np.mean([getattr(path, name)[:length] for path in paths], axis=0))
        for name in ("root_kl", "proxy", "gold")
    )
    curve = Curve(root_kl, proxy, gold if has_gold else None)
    prompts = sorted({prompt for _, _, own in found for prompt in own})
    if not has_gold:
        return curve, None
    place = {prompt: number for number, prompt in enumerate(prompts)}
    runs = [
        Rollouts(
            each.iteration, np.array([place[own[n]] for n in each.prompt]), each.reference_kl, each.proxy, each.gold
        )
        for each, _, own in found
    ]
    return curve, fit("ppo", ppo_points(runs, scales, len(prompts)), seed=seed)


def _best_of_n(runs: Sequence[StudyRun], seed: int) -> BestOfNFindings | None:
    groups = [(run.seed, scored) for run in runs if (scored := _scored(run.directory))]
    shared = sorted(set(groups[0][1]).intersection(*(scored for _, scored in groups))) if groups else []
    if not shared:
        return None
    tables = [{prompt: scored[prompt] for prompt in shared} for _, scored in groups]
    sizes = sorted(set(sizes_of(tables[0])).intersection(*map(sizes_of, tables)))
    by_score, by_gold = (
        [[_scaled(best_of_gains(table, n, figure), _deviation(table, figure)) for n in sizes] for table in tables]
        for figure in (0, 1)
    )
    has_gold = all(isfinite(_deviation(table, 1)) for table in tables)
    proxy, gold = _pooled(by_score, seed), _pooled(by_gold, seed) if has_gold else ()
    roots = np.array([sqrt(best_of_n_kl(n)) for n in sizes])
    columns = [np.array([[own[place][prompt] for place in range(len(sizes))] for prompt in shared]) for own in by_gold]
    golds = tuple(each.value for each in gold)
    return BestOfNFindings(
        tuple(sizes),
        min(len(samples) for table in tables for samples in table.values()),
        tuple(seed for seed, _ in groups),
        proxy,
        gold,
        Curve(tuple(map(float, roots)), tuple(each.value for each in proxy), golds or None),
        fit("best-of-n", best_of_n_points(columns, roots), seed=seed) if has_gold else None,
    )


def _pooled(gains: Sequence[Sequence[Mapping[str, float]]], seed: int) -> tuple[Interval, ...]:
    """For each n the gain over all seeds."""
    return tuple(filter(None, (pooled(list(own), seed=seed) for own in zip(*gains, strict=True))))


def _scored(directory: Path) -> dict[str, list[tuple[float, float]]]:
    """(score, gold) by prompt; gold is NaN in runs without one."""
    found: dict[str, list[tuple[float, float]]] = {}
    rows = [row for row in shaped_rows(directory / BEST_OF_N, ScoredRow) if row["score"] is not None]
    has_gold = any(row["gold"] is not None for row in rows)
    for row in rows:
        if row["gold"] is not None or not has_gold:
            gold = nan if row["gold"] is None else float(row["gold"])
            found.setdefault(row["prompt_id"], []).append((float(row["score"]), gold))
    return found


def _deviation(table: Scored, figure: int) -> float:
    return float(np.std([sample[figure] for samples in table.values() for sample in samples])) or 1.0
