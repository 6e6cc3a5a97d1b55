"""Labels in and out of the store: idempotent, transactional, in a fixed order, and combined into groups."""

import pytest

from triphase.errors import StoreError
from triphase.records.rankings import pairs_of_ranking
from triphase.records.types import Message, Pair, Prompt, Ranking, Response
from triphase.store import Store
from triphase.store.answers import StoredAnswer
from triphase.store.identity import response_id


def prompt(name: str, split: str = "train") -> Prompt:
    return Prompt(name, (Message("user", f"question {name}"),), "domain", split)


def filled(store: Store, texts: tuple[str, ...] = ("one", "two", "three")) -> None:
    store.add_prompts([prompt("p")])
    store.add_responses(Response(f"r{n}", "p", text, "m") for n, text in enumerate(texts))


def ranking(name: str, places: dict[str, int], labeler: str = "ann") -> Ranking:
    return Ranking(name, "p", labeler, places, tuple(sorted(places)), 5.0, 2.0, "note")


def test_adding_again_changes_nothing(store: Store) -> None:
    for new in (1, 0):
        assert store.add_prompts([prompt("p")]) == new
        assert (
            store.add_responses([Response("r", "p", "text", "m", False, 3), Response("s", "p", "more", "m")]) == 2 * new
        )
        assert store.add_rankings([ranking("k", {"r": 1, "s": 2})]) == new
    assert store.prompts() == [prompt("p")]
    assert store.responses() == [Response("r", "p", "text", "m", False, 3), Response("s", "p", "more", "m")]
    assert store.rankings() == [ranking("k", {"r": 1, "s": 2})]


def test_the_same_id_with_other_content_is_refused(store: Store) -> None:
    filled(store)
    with pytest.raises(StoreError, match=r"prompt 'p' is already in the store with another (messages|kind)"):
        store.add_prompts([prompt("q"), Prompt("p", (Message("user", "other"),))])
    assert [one.id for one in store.prompts()] == ["p"], "nothing of a refused call is kept"
    with pytest.raises(StoreError, match="response 'r0' is already in the store with another text"):
        store.add_responses([Response("r0", "p", "changed", "m")])
    store.add_rankings([ranking("k", {"r0": 1, "r1": 2})])
    with pytest.raises(StoreError, match="ranking 'k' is already in the store with another places"):
        store.add_rankings([ranking("k", {"r0": 2, "r1": 1})])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ranking("k", {"r0": 1, "zz": 2}), "response 'zz' does not belong to this prompt"),
        (Ranking("k", "p", "ann", {"r0": 1}, ("r0", "r0"), 0.0), "response 'r0' was shown twice"),
        (Ranking("k", "p", "ann", {"r0": 1}, ("r1",), 0.0), "response 'r0' is ranked but was not shown"),
        (ranking("k", {"r0": 0}), "response 'r0' has place 0; places are whole numbers from 1"),
        (ranking("k", {}), "no response is ranked"),
        (ranking("k", {"r0": 1}, ""), "the labeler has no name"),
        (Ranking("k", "nowhere", "ann", {"r0": 1}, (), 0.0), "the prompt has no responses in the store"),
    ],
)
def test_bad_rankings_are_refused(store: Store, given: Ranking, message: str) -> None:
    filled(store)
    with pytest.raises(StoreError, match=message):
        store.add_rankings([ranking("good", {"r0": 1, "r1": 2}), given])
    assert store.rankings() == []


def test_a_response_to_nothing_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="answers prompt 'p', which is not in the store"):
        store.add_responses([Response("r", "p", "text", "m")])


def test_order_is_that_of_arrival(store: Store) -> None:
    names = ["b", "a", "c"]
    store.add_prompts(prompt(name, "heldout" if name == "a" else "train") for name in names)
    store.add_responses(Response(f"{name}{n}", name, f"{n}", "m") for n in (2, 1) for name in ("c", "b"))
    assert [one.id for one in store.prompts()] == names
    assert [one.id for one in store.prompts("heldout")] == ["a"]
    assert [one.id for one in store.responses()] == ["b2", "b1", "c2", "c1"]
    assert [one.id for one in store.responses("c")] == ["c2", "c1"]


def test_texts_that_databases_refuse_are_mended(store: Store) -> None:
    filled(store, ("zero\0byte", "half \ud800 pair", "⟦fine⟧ 😀"))
    assert [one.text for one in store.responses()] == ["zero\ufffdbyte", "half \ufffd pair", "⟦fine⟧ 😀"]
    filled(store, ("zero\0byte", "half \ud800 pair", "⟦fine⟧ 😀"))


def test_one_group_for_each_prompt_with_votes_combined(store: Store) -> None:
    filled(store)
    store.add_rankings(
        [
            ranking("k1", {"r0": 1, "r1": 2, "r2": 2}),
            ranking("k2", {"r0": 2, "r1": 1}, "bob"),
            ranking("k3", {"r1": 1, "r0": 2}, "cy"),
        ]
    )
    (group,) = store.ranked_groups("train")
    assert group.responses == ("one", "two", "three")
    assert group.labelers == ("ann", "bob", "cy")
    assert group.pairs == (Pair(1, 0, pytest.approx(2 / 3)), Pair(0, 2, 1.0), Pair(1, 2, 0.5))
    assert store.ranked_groups("heldout") == []


def test_equal_texts_are_one_response(store: Store) -> None:
    filled(store, ("same", "same", "other"))
    store.add_rankings([ranking("k", {"r0": 1, "r1": 3, "r2": 2})])
    (group,) = store.ranked_groups("train")
    assert group.responses == ("same", "other")
    assert group.pairs == (Pair(0, 1, 0.5),), "the copies stand on both sides of the other"


def test_equal_texts_of_which_one_was_cut_stay_apart(store: Store) -> None:
    store.add_prompts([prompt("p")])
    store.add_responses([Response("r0", "p", "same", "m"), Response("r1", "p", "same", "m", finished=False)])
    store.add_rankings([ranking("k", {"r0": 1, "r1": 2})])
    (group,) = store.ranked_groups("train")
    assert group.finished == (True, False) and group.pairs == (Pair(0, 1, 1.0),)


def test_an_adjudication_overrules_the_pairs_it_orders(store: Store) -> None:
    filled(store)
    store.add_rankings([ranking("k1", {"r0": 1, "r1": 2, "r2": 3})])
    store.add_answers([StoredAnswer(Ranking("k2", "p", "lead", {"r1": 1, "r0": 2}, (), 9.0), "adjudication")])
    (group,) = store.ranked_groups("train")
    assert group.pairs == (Pair(1, 0, 1.0), Pair(0, 2, 1.0), Pair(1, 2, 1.0))


def test_what_does_not_count_is_no_comparison(store: Store) -> None:
    filled(store)
    places = {"r0": 1, "r1": 2}
    for status in ("withdrawn", "superseded", "late"):
        store.add_answers([StoredAnswer(ranking(status, places), status=status)])
    for purpose in ("gold", "repeat"):
        store.add_answers([StoredAnswer(ranking(purpose, places), purpose)])
    store.add_answers([StoredAnswer(ranking("skip", {}), status="skipped", skip_reason="other")])
    assert store.rankings() == [] and store.ranked_groups("train") == [] and store.comparisons("train") == []
    assert len(store.answers(counted=False)) == 6


def test_margins_of_the_minority_count_against(store: Store) -> None:
    filled(store, ("one", "two"))
    answers = [("a", 1, 3.0), ("b", 1, 1.0), ("c", 2, 1.0)]
    store.add_answers(
        StoredAnswer(ranking(name, {"r0": place, "r1": 3 - place}, name), margin=margin)
        for name, place, margin in answers
    )
    (group,) = store.ranked_groups("train")
    assert group.pairs == (Pair(0, 1, pytest.approx(2 / 3), pytest.approx(1.0)),)


def test_comparisons_leave_ties_out(store: Store) -> None:
    filled(store)
    store.add_rankings([ranking("k", {"r0": 2, "r1": 1, "r2": 2})])
    found = [(one.chosen, one.rejected, one.labeler) for one in store.comparisons("train")]
    assert found == [("two", "one", "ann"), ("two", "three", "ann")]


def test_scores_of_an_ensemble(store: Store) -> None:
    filled(store)
    store.add_scores("rm-1", {"r0": 0.5, "r1": -1.0})
    store.add_scores("rm-2", {"r0": 0.25})
    store.add_scores("rm-1", {"r0": 0.75})
    assert store.scores() == {"r0": {"rm-1": 0.75, "rm-2": 0.25}, "r1": {"rm-1": -1.0}}


def test_pairs_of_a_ranking() -> None:
    assert pairs_of_ranking({"b": 1, "a": 2, "c": 2}) == [("b", "a", 1.0), ("b", "c", 1.0), ("a", "c", 0.5)]
    assert pairs_of_ranking({"a": 4}) == []


def test_response_ids_follow_from_content() -> None:
    one = response_id("p", "m", 0, "text")
    assert one == response_id("p", "m", 0, "text")
    assert (
        len({one, response_id("q", "m", 0, "text"), response_id("p", "m", 1, "text"), response_id("p", "m", 0, "t")})
        == 4
    )
