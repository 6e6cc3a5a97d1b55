"""The contents of the report: its sections in their order, each with the id that a link names."""

from dataclasses import dataclass

from triphase.reports.contents import RunContents
from triphase.reports.findings import Findings
from triphase.reports.starting_point import start_of


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its anchor, its heading, and its short name in the contents."""

    id: str
    title: str
    short: str


def sections_of(
    run: RunContents, found: Findings, *, scores: bool, parts: bool, answers: bool, people: bool, rounds: bool
) -> list[Section]:
    """The sections of a run's report; optional ones are included if they have contents."""
    seeds = len(found.seeds.seeds) if found.seeds else 0
    sections = (
        Section("verdict", "Verdict", "Verdict"),
        Section("seeds", f"Over {seeds} seeds", "Seeds") if seeds else None,
        Section("rounds", "Round by round", "Rounds") if rounds else None,
        Section("people", "What people prefer", "People") if people else None,
        Section("policies", f"PPO against {start_of(run.settings).noun}", "Policies"),
        Section("scores", "Scores before and after", "Scores") if scores else None,
        Section("parts", "Parts of the score", "Parts") if parts else None,
        Section("alarms", "Alarms", "Alarms"),
        Section("overoptimization", "Over-optimization", "Over-optimization"),
        Section("iterations", "PPO, iteration by iteration", "Iterations"),
        Section("reward", "Reward model", "Reward model"),
        Section("labels", "The human step", "Labels"),
        Section("sft", "Supervised fine-tuning", "Fine-tuning"),
        Section("samples", "Samples side by side", "Samples"),
        Section("answers", "How the responses changed", "Responses") if answers else None,
        Section("making", "How this run was produced", "Cost and settings"),
    )
    return [each for each in sections if each is not None]
