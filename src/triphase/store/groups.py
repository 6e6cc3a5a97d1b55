"""From rankings to the training data of the reward model: one group of pairs per prompt, and single comparisons."""

from collections import defaultdict
from collections.abc import Sequence

from triphase.records.rankings import pairs_of_ranking
from triphase.records.types import Comparison, Pair, Prompt, RankedGroup, Response
from triphase.store.answers import StoredAnswer

_Pair = tuple[int, int]
"""Two distinct responses by index, the lower one first."""
_Place = tuple[str, _Pair]
"""The key of a vote: its campaign and its pair."""
_Vote = tuple[float, float]
"""1 for the first, 0.5 tied, 0 for the other; and the margin by which, negative for the other."""


def ranked_group(prompt: Prompt, responses: Sequence[Response], answers: Sequence[StoredAnswer]) -> RankedGroup | None:
    """All active answers about one prompt, combined; None if they order or tie no two responses.

    The target of a pair is the mean of its votes (preferred 1, tied 0.5, other 0). If an adjudication orders a pair, it
    replaces the votes of its campaign on that pair, and is one vote if there are none. The first of a pair is the one
    preferred by the majority, so targets are at least 0.5; with equal votes they are in the order of the responses.
    Responses with the same text and ending are one response. ``margin`` is the mean of the margins given with the
    answers, those of the minority counting against it, and at least 0.
    """
    index_of, distinct = _distinct(responses)
    said = [(answer, _said(answer, index_of)) for answer in answers]
    decided = _decided([seen for answer, seen in said if answer.purpose == "adjudication"])
    votes: dict[_Pair, list[_Vote]] = defaultdict(list)
    overruled: set[_Place] = set()
    voters: set[str] = set()
    for answer, seen in said:
        if answer.purpose != "adjudication":
            for place, vote in seen.items():
                votes[place[1]].append(decided.get(place, vote))
            overruled |= seen.keys() & decided.keys()
            seen = {place: vote for place, vote in seen.items() if place not in decided}
        if seen:
            voters.add(answer.ranking.labeler)
    for place, vote in decided.items():
        if place not in overruled:
            votes[place[1]].append(vote)
    if not votes:
        return None
    pairs = tuple(_pair(first, second, found) for (first, second), found in sorted(votes.items()))
    texts = tuple(response.text for response in distinct)
    finished = tuple(response.finished for response in distinct)
    return RankedGroup(prompt, texts, finished, pairs, "store", tuple(sorted(voters)))


def comparisons_of(prompt: Prompt, responses: Sequence[Response], answer: StoredAnswer) -> list[Comparison]:
    """The ordered pairs of one answer (ties are not comparisons), best chosen first."""
    known = {response.id: response for response in responses}
    ranking = answer.ranking
    pairs = [
        (known[chosen], known[rejected])
        for chosen, rejected, target in pairs_of_ranking(ranking.places)
        if target != 0.5
    ]
    return [
        Comparison(
            prompt, chosen.text, rejected.text, answer.margin, ranking.labeler, chosen.finished, rejected.finished
        )
        for chosen, rejected in pairs
        if chosen.text != rejected.text
    ]


def _distinct(responses: Sequence[Response]) -> tuple[dict[str, int], list[Response]]:
    index_of: dict[str, int] = {}
    place: dict[tuple[str, bool], int] = {}
    distinct: list[Response] = []
    for response in responses:
        key = (response.text, response.finished)
        if key not in place:
            place[key] = len(distinct)
            distinct.append(response)
        index_of[response.id] = place[key]
    return index_of, distinct


def _said(answer: StoredAnswer, index_of: dict[str, int]) -> dict[_Place, _Vote]:
    """This answer's votes, each with the margin for the lower index."""
    found = _votes_of(answer, index_of)
    return {
        (answer.campaign, pair): (vote, (2.0 * vote - 1.0) * (answer.margin or 0.0)) for pair, vote in found.items()
    }


def _decided(decisions: Sequence[dict[_Place, _Vote]]) -> dict[_Place, _Vote]:
    """The adjudications of each pair that they order, of their campaign alone; several (imported) are averaged."""
    found: dict[_Place, list[_Vote]] = defaultdict(list)
    for seen in decisions:
        for place, vote in seen.items():
            found[place].append(vote)
    return {place: _mean(votes) for place, votes in found.items()}


def _mean(votes: Sequence[_Vote]) -> _Vote:
    return sum(vote for vote, _ in votes) / len(votes), sum(margin for _, margin in votes) / len(votes)


def _votes_of(answer: StoredAnswer, index_of: dict[str, int]) -> dict[tuple[int, int], float]:
    """This answer's vote on each unordered pair of distinct responses, for the lower index; copies are averaged."""
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for preferred, other, target in pairs_of_ranking(answer.ranking.places):
        first, second = index_of[preferred], index_of[other]
        if first < second:
            found[first, second].append(target)
        elif second < first:
            found[second, first].append(1.0 - target)
    return {pair: sum(values) / len(values) for pair, values in found.items()}


def _pair(first: int, second: int, votes: Sequence[_Vote]) -> Pair:
    target, margin = _mean(votes)
    if target < 0.5:
        return Pair(second, first, 1.0 - target, max(0.0, -margin))
    return Pair(first, second, target, max(0.0, margin) if target > 0.5 else 0.0)
