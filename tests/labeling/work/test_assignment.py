"""Slots and leases: never two people on one slot, never more answers than slots, gold items and repeats mixed in."""

import threading
from collections import Counter

import pytest
from sqlalchemy import func, select, update
from tests.labeling.crowd import PLAIN, fill, people, prepared

from triphase.errors import StoreError
from triphase.labeling.work import item_plan, labeler_status
from triphase.labeling.work.answer_content import Submission
from triphase.labeling.work.assignment import Assignment, NotNow, next_assignment, order_for
from triphase.labeling.work.item_plan import uncertainty
from triphase.labeling.work.submission import skip, submit
from triphase.settings.schema import LabelingSettings
from triphase.store import Store
from triphase.store.schema import assignments, items, rankings

NOW = 1000.0
MINUTE = 60.0


def take(store: Store, name: str, settings: LabelingSettings = PLAIN, now: float = NOW) -> Assignment | None:
    with store.transaction() as connection:
        return next_assignment(connection, name, settings, seed=0, now=now)


def give(store: Store, name: str, taken: Assignment, places: list[int] | None = None, now: float = NOW) -> str:
    with store.transaction() as connection:
        return submit(connection, name, taken.id, Submission(places or [1, 2, 3, 4]), now=now).ranking_id


def rank_all(store: Store, name: str, settings: LabelingSettings = PLAIN) -> list[Assignment]:
    done = []
    while (taken := take(store, name, settings, NOW + len(done))) is not None:
        give(store, name, taken, now=NOW + len(done))
        done.append(taken)
    return done


def test_a_labeler_keeps_the_item_at_hand(store: Store) -> None:
    prepared(store, PLAIN, 3, "ann")
    first = take(store, "ann")
    assert take(store, "ann", now=NOW + 5).id == first.id
    give(store, "ann", first)
    assert take(store, "ann").id != first.id


def test_no_two_labelers_hold_a_slot(store: Store) -> None:
    prepared(store, PLAIN, 4, "ann", "bob", "cy")
    held = [take(store, name) for name in ("ann", "bob", "cy")]
    assert len({one.id for one in held}) == 3


def test_overlap_is_kept_and_by_different_people(store: Store) -> None:
    settings = PLAIN.model_copy(update={"overlap_share": 1.0, "overlap": 2})
    prepared(store, settings, 5, "ann", "bob", "cy")
    for name in ("ann", "bob", "cy"):
        rank_all(store, name, settings)
    found = Counter(one.prompt_id for one in store.rankings())
    assert set(found.values()) == {2} and len(found) == 5
    assert len({(one.prompt_id, one.labeler) for one in store.rankings()}) == 10
    assert take(store, "cy", settings) is None


def test_overlap_share() -> None:
    settings = LabelingSettings(overlap_share=0.3, overlap=3)
    planned = item_plan.plan({f"p{n}": ("a", "b") for n in range(1000)}, {}, settings, seed=1)
    assert 0.25 < sum(one.slots == 3 for one in planned) / 1000 < 0.35
    assert {one.slots for one in planned} == {1, 3}
    assert [one.prompt_id for one in planned] != sorted(one.prompt_id for one in planned)
    assert planned == item_plan.plan({f"p{n}": ("a", "b") for n in range(1000)}, {}, settings, seed=1)


def test_an_expired_lease_goes_to_another(store: Store) -> None:
    prepared(store, PLAIN, 1, "ann", "bob")
    held = take(store, "ann")
    assert take(store, "bob", now=NOW + 19 * MINUTE) is None
    assert take(store, "bob", now=NOW + 21 * MINUTE).id == held.id
    assert take(store, "ann", now=NOW + 22 * MINUTE) is None


def test_looking_at_an_item_renews_its_lease(store: Store) -> None:
    prepared(store, PLAIN, 1, "ann", "bob")
    take(store, "ann")
    take(store, "ann", now=NOW + 15 * MINUTE)
    assert take(store, "bob", now=NOW + 30 * MINUTE) is None


def test_a_skipped_item_goes_to_others_only(store: Store) -> None:
    prepared(store, PLAIN, 1, "ann", "bob")
    held = take(store, "ann")
    with store.transaction() as connection:
        skip(connection, "ann", held.id, "cannot decide", "", now=NOW)
        skip(connection, "ann", held.id, "cannot decide", "", now=NOW)
    assert take(store, "ann") is None
    assert take(store, "bob").id == held.id
    with store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(rankings)).scalar() == 1


def test_paused_labelers_get_nothing(store: Store) -> None:
    prepared(store, PLAIN, 2, "ann")
    with store.transaction() as connection:
        labeler_status.set_status(connection, "ann", "paused", now=NOW, by="lead")
    with pytest.raises(NotNow, match="you are paused"):
        take(store, "ann")


def test_withdrawal_opens_the_slots_and_taking_back_fills_what_is_free(store: Store) -> None:
    prepared(store, PLAIN, 3, "ann", "bob")
    rank_all(store, "ann")
    with store.transaction() as connection:
        assert labeler_status.set_status(connection, "ann", "withdrawn", now=NOW, by="lead") == 3
    assert store.rankings() == [] and len(store.answers(counted=False)) == 3
    give(store, "bob", take(store, "bob"))
    with store.transaction() as connection:
        assert labeler_status.set_status(connection, "ann", "active", now=NOW, by="lead") == 2
    assert Counter(one.labeler for one in store.rankings()) == {"ann": 2, "bob": 1}
    assert take(store, "bob") is None, "every slot is filled once"


def test_order_is_seeded_stored_and_differs(store: Store) -> None:
    settings = PLAIN.model_copy(update={"overlap_share": 1.0})
    prepared(store, settings, 30, "ann", "bob")
    orders: dict[str, list[tuple[str, ...]]] = {}
    for name in ("ann", "bob"):
        for taken in rank_all(store, name, settings):
            orders.setdefault(taken.prompt_id, []).append(taken.order_shown)
    assert {one.prompt_id: one.order_shown for one in store.rankings() if one.labeler == "bob"} == {
        prompt: both[1] for prompt, both in orders.items()
    }
    assert sum(one != two for one, two in orders.values()) > 20
    first = Counter(order[0][-1] for both in orders.values() for order in both)
    assert set(first) == {"0", "1", "2", "3"}
    assert order_for(0, 1, "ann", ["a", "b", "c"]) == order_for(0, 1, "ann", ["c", "b", "a"])


def test_gold_items_come_to_everyone_once_and_look_like_others(store: Store) -> None:
    settings = PLAIN.model_copy(update={"gold_share": 0.4})
    fill(store, 40)
    with store.transaction() as connection:
        for n in range(3):
            item_plan.add_gold(connection, f"p{n:05d}", {f"p{n:05d}-0": 1, f"p{n:05d}-1": 2}, now=0.0, by="lead")
    item_plan.make_items(store, settings, seed=0, now=0.0)
    people(store, "ann", "bob")
    for name in ("ann", "bob"):
        done = []
        while len(done) < 15:
            taken = take(store, name, settings)
            with store.transaction() as connection:
                submit(connection, name, taken.id, Submission([1, 2, 3, 4][: len(taken.order_shown)]), now=NOW)
            done.append(taken)
        gold = [one.prompt_id for one in done if one.purpose == "gold"]
        assert sorted(gold) == ["p00000", "p00001", "p00002"]
    assert all(one.prompt_id > "p00002" for one in store.rankings()), "gold answers are no comparisons"


def test_gold_answers_must_name_responses(store: Store) -> None:
    fill(store, 1)
    with store.transaction() as connection:
        with pytest.raises(StoreError, match="response 'zz' does not belong"):
            item_plan.add_gold(connection, "p00000", {"zz": 1, "p00000-1": 2}, now=0.0, by="lead")
        with pytest.raises(StoreError, match="at least two"):
            item_plan.add_gold(connection, "p00000", {"p00000-1": 2}, now=0.0, by="lead")


def test_repeats_come_later_in_another_order_and_are_no_comparisons(store: Store) -> None:
    settings = PLAIN.model_copy(update={"repeat_share": 0.3})
    prepared(store, settings, 40, "ann")
    done = rank_all(store, "ann", settings)
    repeats = [index for index, one in enumerate(done) if one.purpose == "repeat"]
    assert len(repeats) >= 3
    for index in repeats:
        first = next(n for n, one in enumerate(done) if one.item_id == done[index].item_id)
        assert index - first > 5 and done[first].order_shown != done[index].order_shown
    assert len(store.rankings()) == 40


def test_scores_choose_and_a_share_stays_random() -> None:
    candidates = {f"p{n:03d}": (f"a{n:03d}", f"b{n:03d}") for n in range(100)}
    scores = {f"a{n:03d}": {"rm": 0.0} for n in range(100)} | {f"b{n:03d}": {"rm": float(n)} for n in range(100)}
    planned = item_plan.plan(candidates, scores, LabelingSettings(random_share=0.25), seed=3)
    assert Counter(one.chosen_by for one in planned) == {"random": 25, "active": 75}
    active = [one.prompt_id for one in planned if one.chosen_by == "active"]
    assert active == sorted(active), "the smallest difference first"
    assert 5 <= sum(one.chosen_by == "random" for one in planned[:40]) <= 15, "mixed evenly"
    random = [one.prompt_id for one in planned if one.chosen_by == "random"]
    assert random != sorted(random)


def test_uncertainty_grows_with_disagreement_and_small_differences() -> None:
    close, far = {"a": {"m": 0.0}, "b": {"m": 0.1}}, {"a": {"m": 0.0}, "b": {"m": 2.0}}
    split = {"a": {"m": 0.0, "n": 0.0}, "b": {"m": 3.0, "n": 1.0}}
    assert uncertainty(("a", "b"), close) < uncertainty(("a", "b"), far)
    assert uncertainty(("a", "b"), split) < uncertainty(("a", "b"), far)


def test_new_scores_reorder_what_nobody_has_begun(store: Store) -> None:
    prepared(store, PLAIN, 20, "ann")
    begun = take(store, "ann")
    store.add_scores("rm", {one.id: float(one.id[-1]) * int(one.prompt_id[1:]) for one in store.responses()})
    settings = PLAIN.model_copy(update={"random_share": 0.0})
    assert item_plan.reprioritize(store, settings, seed=0) == 19
    give(store, "ann", begun)
    waiting = sorted({f"p{n:05d}" for n in range(20)} - {begun.prompt_id})
    assert take(store, "ann").prompt_id == waiting[0]


def test_items_are_made_once(store: Store) -> None:
    fill(store, 3)
    assert item_plan.make_items(store, PLAIN, seed=0, now=0.0) == 3
    assert item_plan.make_items(store, PLAIN, seed=0, now=0.0) == 0
    with store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(items)).scalar() == 3


def test_many_at_once_fill_each_slot_once(store: Store) -> None:
    names = [f"person-{n}" for n in range(8)]
    settings = PLAIN.model_copy(update={"overlap_share": 0.5, "overlap": 3})
    prepared(store, settings, 40, *names)
    problems: list[Exception] = []

    def work(name: str) -> None:
        try:
            rank_all(store, name, settings)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with store.reading() as connection:
        wanted = dict(connection.execute(select(items.c.prompt_id, items.c.overlap)).all())
        states = dict(connection.execute(select(assignments.c.state, func.count()).group_by(assignments.c.state)).all())
    assert Counter(one.prompt_id for one in store.rankings()) == wanted
    assert states == {"done": sum(wanted.values())}


def test_a_lease_that_is_stuck_would_be_seen(store: Store) -> None:
    prepared(store, PLAIN, 1, "ann", "bob")
    take(store, "ann")
    with store.transaction() as connection:
        connection.execute(update(assignments).values(expires_at=NOW - 1))
    assert take(store, "bob") is not None
