"""Statistics of each labeler's answers: gold accuracy, self-consistency, position and length bias, speed."""

from collections.abc import Iterable, Mapping
from itertools import combinations, pairwise
from statistics import median

from triphase.labeling.quality.agreement import Estimate, share_by_prompt
from triphase.records.types import Ranking


def gold_accuracy(rankings: Iterable[Ranking], known: Mapping[str, Mapping[str, int]]) -> Estimate | None:
    """Share of the pairs ordered by the known answer (prompt → places) that the labeler orders alike; a tie is 0.5."""
    values = []
    for ranking in rankings:
        right = known.get(ranking.prompt_id, {})
        values += [(ranking.prompt_id, credit) for credit in _credits(ranking.places, right)]
    return share_by_prompt(values)


def self_consistency(first: Iterable[Ranking], repeated: Iterable[Ranking]) -> Estimate | None:
    """Share of the pairs ordered the first time that the same labeler orders alike the second time; a tie is 0.5."""
    before = {(ranking.labeler, ranking.prompt_id): ranking for ranking in first}
    values = []
    for ranking in repeated:
        earlier = before.get((ranking.labeler, ranking.prompt_id))
        if earlier is not None:
            values += [(ranking.prompt_id, credit) for credit in _credits(ranking.places, earlier.places)]
    return share_by_prompt(values)


def position_bias(rankings: Iterable[Ranking]) -> Estimate | None:
    """Share of ordered pairs of neighbors on the page in which the one shown earlier is preferred; 0.5 is no bias.

    Neighbors only, since the pairs of a ranking are dependent.
    """
    values = []
    for ranking in rankings:
        shown = [response for response in ranking.order_shown if response in ranking.places]
        for earlier, later in pairwise(shown):
            difference = ranking.places[later] - ranking.places[earlier]
            if difference:
                values.append((ranking.prompt_id, float(difference > 0)))
    return share_by_prompt(values)


def length_bias(rankings: Iterable[Ranking], words: Mapping[str, int]) -> Estimate | None:
    """Share of ordered pairs of unequal length in which the longer (``words`` by response id) is preferred."""
    values = []
    for ranking in rankings:
        for one, other in combinations(sorted(ranking.places), 2):
            place, length = ranking.places[other] - ranking.places[one], words[one] - words[other]
            if place and length:
                values.append((ranking.prompt_id, float((place > 0) == (length > 0))))
    return share_by_prompt(values)


def median_seconds(rankings: Iterable[Ranking]) -> float | None:
    """Median time on task; None if no times were recorded."""
    times = [ranking.seconds for ranking in rankings if ranking.seconds is not None]
    return median(times) if times else None


def _credits(places: Mapping[str, int], right: Mapping[str, int]) -> list[float]:
    found = []
    for one, other in combinations(sorted(right.keys() & places.keys()), 2):
        wanted, given = right[other] - right[one], places[other] - places[one]
        if wanted:
            found.append(0.5 if not given else float((wanted > 0) == (given > 0)))
    return found
