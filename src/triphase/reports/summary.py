"""summary.json: the statistics of a run, for machines. An unknown value is null."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from triphase.reports.contents import RunContents, read_run
from triphase.reports.findings import Findings, PolicyFindings, find
from triphase.reports.intervals import Interval
from triphase.reports.rounds import rounds_of
from triphase.reports.scored_by import scorer_of
from triphase.reports.seeds import SeedFindings
from triphase.reports.starting_point import start_of
from triphase.reports.summary_file import FILE_NAME, keep_summary
from triphase.settings.phase_names import variant_of


def write_summary(run_directory: Path) -> Path:
    """Writes summary.json into the run directory, whole or not at all."""
    run = read_run(run_directory)
    path = run_directory / FILE_NAME
    keep_summary(path, summary_of(run, find(run)))
    return path


def summary_of(run: RunContents, found: Findings) -> dict[str, Any]:
    """The summary as plain values."""
    sft, ppo, reward = found.policies.get("sft"), found.policies.get("ppo"), found.reward
    start = start_of(run.settings)
    return {
        "seconds": total_seconds(run),
        "peak_gb": run.peak_gb,
        "labelers": {"agreement": (run.labeling or {}).get("agreement")},
        "reward_model": {
            "accuracy": _value(reward.accuracy),
            "accuracy_low": reward.accuracy.low if reward.accuracy else None,
            "accuracy_high": reward.accuracy.high if reward.accuracy else None,
            "noise_ceiling": reward.noise_ceiling,
            "longer_wins": _value(reward.longer_wins),
            "better_than_chance": reward.chance.is_better if reward.chance else None,
            "finding": reward.chance.finding if reward.chance else None,
            "ece": reward.reliability.error if reward.reliability else None,
            "temperature": reward.temperature.temperature if reward.temperature else None,
            "ece_scaled": reward.temperature.error_after if reward.temperature else None,
            "length_correlation": _value(reward.length_correlation),
            "accuracy_of_like_length": _value(reward.like_length),
        },
        "sft": {"gold_mean": _value(sft.gold) if sft else None},
        "ppo": {
            **_judged(ppo),
            "best_iteration": found.course.best if found.course else None,
            "best_iteration_gold": found.course.best_gold if found.course else None,
            "fell_from_its_best": found.course.fallen if found.course else None,
            "scored_by": scorer_of(run.settings) if ppo else None,
        },
        **({"variants": variants} if (variants := _variants(run, found)) else {}),
        "alarms": {name: [asdict(alarm) for alarm in each] for name, each in found.alarms.items()},
        **({} if start.tuned else {"start": start.noun}),
        **({} if found.seeds is None else {"seeds": _over_seeds(found.seeds)}),
        **({"rounds": rounds} if (rounds := _rounds(run)) else {}),
        "versions": run.provenance.get("versions", {}),
        "seed": run.settings.get("seed"),
    }


def _judged(policy: PolicyFindings | None) -> dict[str, float | None]:
    """How a trained policy differs from the one that it started from."""
    wins, gain = (policy.gold_win_rate, policy.proxy_gain) if policy else (None, None)
    return {
        "gold_mean": _value(policy.gold) if policy else None,
        "gold_win_rate": _value(wins),
        "gold_win_rate_low": wins.low if wins else None,
        "gold_win_rate_high": wins.high if wins else None,
        "proxy_gain": _value(gain),
        "proxy_gain_low": gain.low if gain else None,
        "proxy_gain_high": gain.high if gain else None,
        "proxy_gain_deviations": policy.gain_in_deviations if policy else None,
        "reference_kl": policy.reference_kl if policy else None,
        "mean_length": policy.mean_length if policy else None,
        "eos_rate": policy.eos_rate if policy else None,
    }


def _variants(run: RunContents, found: Findings) -> dict[str, dict[str, Any]]:
    """The evaluated variants by name, each with the scorer that it was trained with."""
    return {
        name: {**_judged(policy), "scored_by": scorer_of(run.settings, name)}
        for key, policy in found.policies.items()
        if (name := variant_of(key)) is not None
    }


def _rounds(run: RunContents) -> list[dict[str, Any]]:
    """The further rounds, if there are any."""
    return [] if run.directory is None else rounds_of(run.directory, run.seed)


def _over_seeds(found: SeedFindings) -> dict[str, Any]:
    """Values with intervals that include seeds as well as prompts."""
    return {
        "varied": found.varied,
        "seeds": list(found.seeds),
        "policies": {
            policy.name: {
                "gold_win_rate": _bounds(policy.gold_win_rate),
                "gold_gain": _bounds(policy.gold_gain),
                "proxy_gain": _bounds(policy.proxy_gain),
                "reference_kl": _bounds(policy.reference_kl),
                "mean_length": _bounds(policy.tokens),
                "gold_win_rate_by_seed": list(policy.by_seed),
            }
            for policy in found.policies
        },
        "gold_win_rates_between": [
            {"first": first, "second": second, **(_bounds(rate) or {})}
            for (first, second), rate in found.against.items()
        ],
        "best_of_n": [
            {"n": each.n, "proxy_gain": _bounds(each.proxy_gain), "gold_gain": _bounds(each.gold_gain)}
            for each in found.best_of_n
        ],
    }


def _bounds(interval: Interval | None) -> dict[str, float | None] | None:
    return {"value": interval.value, "low": interval.low, "high": interval.high} if interval else None


def total_seconds(run: RunContents) -> float | None:
    """The time of the whole run: ``total`` if it was measured, else the sum of the phases; None if none was."""
    return run.seconds.get("total", sum(run.seconds.values()) if run.seconds else None)


def _value(interval: Interval | None) -> float | None:
    return interval.value if interval else None
