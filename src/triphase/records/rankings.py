"""From one ranking to the pairs it contains."""

from collections.abc import Mapping
from itertools import combinations


def pairs_of_ranking(places: Mapping[str, int]) -> list[tuple[str, str, float]]:
    """All K(K−1)/2 pairs of the ranked responses, as (preferred, other, target).

    ``target`` is 1 if the first has the better (smaller) place and 0.5 for a tie; a tied pair is in the order of the
    ids. The list is sorted by place, then id, so that equal rankings give equal lists.
    """
    ordered = sorted(places, key=lambda response: (places[response], response))
    return [(a, b, 0.5 if places[a] == places[b] else 1.0) for a, b in combinations(ordered, 2)]
