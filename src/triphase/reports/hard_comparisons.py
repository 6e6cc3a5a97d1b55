"""The held-out judgments that the reward model contradicts most, or cannot decide, with their texts."""

from collections.abc import Sequence
from dataclasses import dataclass

MOST = 8
"""Number of each kind."""


@dataclass(frozen=True, slots=True)
class HardComparison:
    """One judgment, with the reward model's margin.

    Attributes:
        kind: `contradicted` or `undecided`.
        margin: score of the chosen response minus that of the rejected one.
    """

    kind: str
    prompt_id: str
    prompt: str
    chosen: str
    rejected: str
    labeler: str
    margin: float


def hardest(judged: Sequence[HardComparison]) -> list[HardComparison]:
    """The most contradicted of all judgments (of whatever kind), and the least decided among the others.

    One judgment represents those of all labelers on a pair of texts: the one that is contradicted, else the first.
    """
    distinct: dict[tuple[str, frozenset[str]], HardComparison] = {}
    for each in sorted(judged, key=lambda each: each.margin):
        distinct.setdefault((each.prompt_id, frozenset((each.chosen, each.rejected))), each)
    ordered = list(distinct.values())
    contradicted = [each for each in ordered if each.margin < 0][:MOST]
    rest = [each for each in ordered if each not in contradicted]
    undecided = sorted(rest, key=lambda each: abs(each.margin))[:MOST]
    return [_named(each, "contradicted") for each in contradicted] + [_named(each, "undecided") for each in undecided]


def _named(each: HardComparison, kind: str) -> HardComparison:
    return HardComparison(kind, each.prompt_id, each.prompt, each.chosen, each.rejected, each.labeler, each.margin)
