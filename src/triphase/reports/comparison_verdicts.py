"""What a comparison says of each policy, in one sentence that its intervals support."""

from collections.abc import Sequence
from dataclasses import dataclass

from triphase.reports.comparison import ComparisonFindings, against_first
from triphase.reports.interval_wording import is_above, is_below, percent_interval


@dataclass(frozen=True, slots=True)
class ComparisonVerdict:
    """A policy against the first one, by every criterion.

    Attributes:
        tone: `good` or `bad` if all criteria that tell the two apart agree; `open` if none does, or if they contradict.
    """

    tone: str
    sentence: str


def verdicts_of(found: ComparisonFindings) -> list[ComparisonVerdict]:
    """One for each policy except the first, without those that no criterion has judged."""
    first, *others = [side.name for side in found.sides]
    return [verdict for side in others if (verdict := _verdict(found, first, side)) is not None]


def _verdict(found: ComparisonFindings, first: str, side: str) -> ComparisonVerdict | None:
    better: list[str] = []
    worse: list[str] = []
    even: list[str] = []
    for criterion in found.criteria:
        rate = against_first(criterion, first, side)
        if rate is None:
            continue
        kind = better if is_above(rate, 0.5) else worse if is_below(rate, 0.5) else even
        alone = " of one prompt" if rate.low is None else ""
        kind.append(f"{criterion.name}, {percent_interval(rate)}{alone}")
    if not (better or worse or even):
        return None
    said = [f"better by {_listed(better)}"] * bool(better) + [f"worse by {_listed(worse)}"] * bool(worse)
    said += [f"not clearly better or worse by {_listed(even)}"] * bool(even)
    sentence = f"{side} against {first}: {'; '.join(said)}."
    if better and worse:
        sentence += " The criteria contradict each other: a policy may have exploited the one by which it is better."
    tone = "good" if better and not worse else "bad" if worse and not better else "open"
    return ComparisonVerdict(tone, sentence)


def _listed(names: Sequence[str]) -> str:
    return ", and by ".join([", by ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
