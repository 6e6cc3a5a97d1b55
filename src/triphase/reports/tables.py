"""Formatting of numbers and names on the page, and the facts under each station of the pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from triphase.monitoring.wording import counted, number, percent
from triphase.reports.contents import RunContents
from triphase.reports.findings import Findings
from triphase.reports.scored_by import uses_reward_model
from triphase.reports.starting_point import left_out_of, start_of
from triphase.settings.phase_names import variant_of


@dataclass(frozen=True, slots=True)
class Station:
    """One box of the pipeline picture. ``done`` is False if the run has not reached it yet."""

    title: str
    done: bool
    facts: tuple[str, ...]


def clock(seconds: float | None) -> str:
    """Seconds as 41 s, 11 min 32 s, or 3 h 05 min."""
    if seconds is None:
        return "–"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def policy_name(policy: str, start: str = "SFT") -> str:
    """SFT (or what the run started from), PPO, PPO after an iteration (`ppo@12`), or the name of the variant."""
    if policy.startswith("ppo@"):
        return f"PPO, iteration {policy.removeprefix('ppo@')}"
    return {"sft": start, "ppo": "PPO"}.get(policy, variant_of(policy) or policy)


def flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and texts, in their order."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found += flattened(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value):
                found += flattened(item, f"{name}.{place}.")
        else:
            found.append((name, _plain(value)))
    return found


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """The plan's bytes by part for each phase, and the measured ones, as texts in MB."""

    phases: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def memory_table(run: RunContents) -> MemoryTable | None:
    """The plan next to the measured peaks; None if the run has no plan."""
    planned: Mapping[str, Any] = (run.plan or {}).get("phases") or {}
    if not planned:
        return None
    parts = next(iter(planned.values()))["parts"]
    rows = [
        (part, tuple(_megabytes(phase["parts"].get(part)) for phase in planned.values()))
        for part in parts
        if any(phase["parts"].get(part) for phase in planned.values())
    ]
    rows.append(("planned peak", tuple(_megabytes(phase["peak_bytes"]) for phase in planned.values())))
    measured = [run.peaks_gb.get(name) for name in planned]
    rows.append(("measured peak", tuple(_megabytes(gb * 1e9 if gb else None) for gb in measured)))
    return MemoryTable(tuple(planned), tuple(rows))


def ppo_parts(run: RunContents) -> list[tuple[str, float]]:
    """Seconds of the main PPO run by activity, over all iterations that record them."""
    parts = ("generation", "scoring", "update")
    sums = [(part, sum(row.get(f"ppo/seconds_{part}", 0.0) for row in run.ppo)) for part in parts]
    return [(part, seconds) for part, seconds in sums if seconds > 0]


def _megabytes(size: float | None) -> str:
    return f"{size / 1e6:.1f}" if size else "–"


def pipeline(run: RunContents, found: Findings) -> list[Station]:
    """The stations of the run, each with its results, or that it is left out."""
    absent = left_out_of(run.settings)
    stations = [_sft(run), _labels(run), _reward(run, found), _ppo(run), _evaluation(run, found)]
    return [
        replace(station, done=True, facts=("left out",)) if step in absent and not station.done else station
        for step, station in zip(("sft", "labelling", "reward", "ppo", "evaluation"), stations, strict=True)
    ]


def _sft(run: RunContents) -> Station:
    if not start_of(run.settings).tuned:
        return Station("1 · Supervised fine-tuning", True, ("left out", "starts from the original model"))
    kinds = (run.mixture or {}).get("kinds", {}).values()
    records = sum(kind["records"] for kind in kinds)
    facts = [counted(records, "demonstration")] if records else []
    if run.sft:
        facts.append(counted(int(run.sft[-1]["step"]), "step"))
        held = [row["sft/heldout_loss"] for row in run.sft if "sft/heldout_loss" in row]
        facts += [f"held-out loss {held[-1]:.2f}"] if held else []
    return Station("1 · Supervised fine-tuning", bool(run.sft), tuple(facts))


def _labels(run: RunContents) -> Station:
    labels = run.labeling
    if _needs_none(run) and not (labels or {}).get("rankings"):
        return Station("People rank", True, ("not needed",))
    if not labels:
        return Station("People rank", False, ())
    names = {"simulated": "Simulated labelers rank", "imported": "Imported comparisons"}
    facts = [counted(labels.get("rankings", 0), "ranking"), f"{counted(labels.get('comparisons', 0), 'pair')} compared"]
    if labels.get("agreement") is not None:
        facts.append(f"agreement {percent(labels['agreement'])}")
    return Station(names.get(str(labels.get("source")), "People rank"), True, tuple(facts))


def _reward(run: RunContents, found: Findings) -> Station:
    facts = [counted(int(run.reward[-1]["step"]), "step")] if run.reward else []
    if found.reward.accuracy:
        facts.append(f"accuracy {percent(found.reward.accuracy.value)}")
    if found.reward.noise_ceiling is not None:
        facts.append(f"ceiling {percent(found.reward.noise_ceiling)}")
    if _needs_none(run):
        return Station("2 · Reward model", True, ("not needed",))
    return Station("2 · Reward model", bool(run.reward), tuple(facts))


def _needs_none(run: RunContents) -> bool:
    """Whether PPO was trained without a reward model."""
    return bool(run.ppo) and not run.reward and not uses_reward_model(run.settings)


def _ppo(run: RunContents) -> Station:
    facts = []
    if run.ppo:
        last = run.ppo[-1]
        facts.append(f"{last['step']} iteration{'' if last['step'] == 1 else 's'}")
        facts += [f"{last['ppo/episodes']:.0f} episodes"] if "ppo/episodes" in last else []
        facts += [f"KL {number(last['ppo/reference_kl'], 1)} nats"] if "ppo/reference_kl" in last else []
    return Station("3 · PPO", bool(run.ppo), tuple(facts))


def _evaluation(run: RunContents, found: Findings) -> Station:
    ppo = found.policies.get("ppo")
    facts = [f"{len({sample.prompt_id for sample in run.samples})} held-out prompts"] if run.samples else []
    if ppo and ppo.gold_win_rate:
        facts.append(f"PPO wins {percent(ppo.gold_win_rate.value)}")
    return Station("Evaluation", bool(run.samples), tuple(facts))


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "none"
    return "none" if value == {} else str(value)
