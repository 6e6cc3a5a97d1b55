"""Comparisons of one prompt become one group of distinct responses."""

from itertools import permutations

from benchmarks.grouping import groups_of_preferences
from hypothesis import given
from hypothesis import strategies as st

from triphase.records.types import Comparison, Message, Pair, Prompt


def comparison(prompt: str, chosen: str, rejected: str, margin: float | None = None, labeler: str = "") -> Comparison:
    return Comparison(Prompt(prompt, (Message("user", prompt),)), chosen, rejected, margin, labeler)


def test_comparisons_of_one_prompt_share_their_responses() -> None:
    [first, second] = groups_of_preferences(
        [comparison("p", "a", "b", labeler="ann"), comparison("q", "x", "y"), comparison("p", "a", "c", labeler="bo")]
    )
    assert first.responses == ("a", "b", "c")
    assert first.pairs == (Pair(0, 1, 1.0), Pair(0, 2, 1.0))
    assert first.labelers == ("ann", "bo")
    assert first.finished == (True, True, True)
    assert (second.prompt.id, second.responses, second.source) == ("q", ("x", "y"), "imported")


def test_votes_on_one_pair_become_its_target() -> None:
    [group] = groups_of_preferences(
        [comparison("p", "a", "b", 3), comparison("p", "b", "a", 1), comparison("p", "b", "a", 4)]
    )
    assert group.pairs == (Pair(1, 0, 2 / 3, (1 + 4 - 3) / 3),)
    [tie] = groups_of_preferences([comparison("p", "b", "a", 5), comparison("p", "a", "b")])
    assert tie.responses == ("b", "a")
    assert tie.pairs == (Pair(0, 1, 0.5, 0.0),)


@given(st.lists(st.tuples(st.sampled_from("pq"), st.permutations("abcd"), st.floats(0, 3)), max_size=12))
def test_no_vote_is_lost(votes: list[tuple[str, list[str], float]]) -> None:
    rows = [comparison(prompt, order[0], order[1], margin) for prompt, order, margin in votes]
    for group in groups_of_preferences(rows):
        members = [row for row in rows if row.prompt == group.prompt]
        assert len(set(group.responses)) == len(group.responses)
        told = {(pair.first, pair.second) for pair in group.pairs}
        assert not any((b, a) in told for a, b in told)
        for a, b in permutations(range(len(group.responses)), 2):
            mine = [r for r in members if (r.chosen, r.rejected) == (group.responses[a], group.responses[b])]
            both = [r for r in members if {r.chosen, r.rejected} == {group.responses[a], group.responses[b]}]
            pairs = [pair for pair in group.pairs if (pair.first, pair.second) == (a, b)]
            if pairs:
                assert pairs[0].target == len(mine) / len(both) >= 0.5
                assert pairs[0].margin >= 0
            assert bool(both) == ((a, b) in told or (b, a) in told)
