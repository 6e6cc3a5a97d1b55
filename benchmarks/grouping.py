"""Comparisons of one prompt become one group: the batch element of the reward model."""

from collections.abc import Iterable

from triphase.records.types import Comparison, Message, Pair, RankedGroup


def groups_of_preferences(comparisons: Iterable[Comparison], source: str = "imported") -> list[RankedGroup]:
    """One group for each conversation, in the order of its first comparison, each response text once.

    All that was said about one pair of texts becomes one ``Pair``: with n comparisons, k of them for ``first``, its
    target is k/n ≥ 1/2 and its margin the mean of the signed margins, which counts against ``second``. A tie (k = n/2)
    has margin 0.
    """
    together: dict[tuple[Message, ...], list[Comparison]] = {}
    for comparison in comparisons:
        together.setdefault(comparison.prompt.messages, []).append(comparison)
    return [_group(members, source) for members in together.values()]


def _group(members: list[Comparison], source: str) -> RankedGroup:
    texts: dict[str, int] = {}
    votes: dict[tuple[int, int], list[float]] = {}  # margins of the votes for the first of a pair over the second
    for member in members:
        chosen = texts.setdefault(member.chosen, len(texts))
        rejected = texts.setdefault(member.rejected, len(texts))
        votes.setdefault((chosen, rejected), []).append(member.margin or 0.0)
    labelers = tuple(dict.fromkeys(member.labeler for member in members if member.labeler))
    return RankedGroup(
        prompt=members[0].prompt,
        responses=tuple(texts),
        finished=(True,) * len(texts),
        pairs=tuple(_pairs(votes)),
        source=source,
        labelers=labelers,
    )


def _pairs(votes: dict[tuple[int, int], list[float]]) -> Iterable[Pair]:
    for first, second in votes:
        mine, against = votes[(first, second)], votes.get((second, first), [])
        if len(against) > len(mine) or (len(against) == len(mine) and second < first):
            continue  # told from the other side
        count = len(mine) + len(against)
        margin = max(0.0, (sum(mine) - sum(against)) / count) if len(mine) > len(against) else 0.0
        yield Pair(first, second, len(mine) / count, margin)
