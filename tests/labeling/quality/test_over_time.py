"""A labeler's statistics by day or week: the assignment to periods, and the denominators."""

from triphase.labeling.quality.over_time import DAY, MOST_PERIODS, WEEK, periods_of
from triphase.records.types import Ranking
from triphase.store.answers import Purpose, Status, StoredAnswer

BEGIN = 20_000 * DAY
UP, DOWN = {"a": 1, "b": 2}, {"a": 2, "b": 1}


def answer(
    who: str, prompt: str, day: float, places: dict[str, int], purpose: Purpose = "label", status: Status = "active"
) -> StoredAnswer:
    at = BEGIN + day * DAY
    return StoredAnswer(
        Ranking(f"{who} {prompt} {day}", prompt, who, places, ("a", "b"), at, 10.0 + day), purpose, status
    )


def test_by_day_what_was_done_and_how_well() -> None:
    answers = [
        answer("ann", "p0", 0.2, UP), answer("bob", "p0", 0.3, UP), answer("ann", "p1", 0.9, UP),
        answer("bob", "p1", 5, DOWN),
        answer("ann", "p2", 3.5, UP), answer("bob", "p2", 1, DOWN), answer("cy", "p2", 1, UP),
        answer("ann", "g", 3.6, DOWN, "gold"), answer("ann", "p0", 3.7, DOWN, "repeat"),
        answer("ann", "p3", 3.8, {}, status="skipped"), answer("ann", "p4", 3.9, UP, status="superseded"),
    ]  # fmt: skip
    first, second = periods_of("ann", answers, {"g": UP})
    assert (first.begin, first.length) == (BEGIN, DAY) and (second.begin, second.length) == (BEGIN + 3 * DAY, DAY)
    assert (first.answers, first.skipped, first.median_seconds) == (2, 0, 10.55)
    assert first.agreement is not None and (first.agreement.value, first.agreement.pairs) == (0.5, 2)
    assert first.gold is None and first.consistency is None
    assert (second.answers, second.skipped) == (3, 1)
    assert second.agreement is not None and (second.agreement.value, second.agreement.pairs) == (0.5, 2)
    assert second.gold is not None and second.gold.value == 0.0
    assert second.consistency is not None and second.consistency.value == 0.0, "p0 the other way round than on day 0"


def test_by_week_and_the_newest_of_many() -> None:
    answers = [answer("ann", f"p{week}", 7 * week + 1.5, UP) for week in range(40)]
    found = periods_of("ann", answers, {})
    assert len(found) == MOST_PERIODS and {each.length for each in found} == {WEEK}
    assert [each.begin for each in found] == [BEGIN + DAY + 7 * DAY * week for week in range(14, 40)]
    assert all(each.answers == 1 and each.agreement is None for each in found)
    assert periods_of("bob", answers, {}) == []
