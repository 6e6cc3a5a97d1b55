"""The content of an answer as the page sends it: checked, mapped to ids, compared with the stored one."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sqlalchemy import Row

from triphase.store.answers import StoredAnswer
from triphase.store.record_rows import answer_of

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Submission:
    """An answer as the page sends it: by position in the order shown, since the page knows no ids.

    ``places``: for each position a place from 1, or None for not ranked. ``quality``: 1–7 or None for each position,
    and ``ratings`` the same for each criterion. ``rewrites``: for each position the text as it should be, or None.
    """

    places: Sequence[int | None]
    seconds: float | None = None
    strength: int | None = None
    quality: Sequence[int | None] = ()
    note: str = ""
    ratings: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    rationale: str = ""
    rewrites: Sequence[str | None] = ()


@dataclass(frozen=True, slots=True)
class Asks:
    """What the page collects besides places."""

    strength: bool = True
    quality: bool = True
    criteria: Collection[str] = ()
    rationale: bool = True
    rewrite: bool = True


def by_id(order: Sequence[str], values: Sequence[Value | None]) -> dict[str, Value]:
    """Values given by position, by id; empty if there are none."""
    return {id_: value for id_, value in zip(order, values or [None] * len(order), strict=True) if value}


def problem_of(submission: Submission, count: int) -> str | None:
    """Why a submission is invalid, and what to do; None if it is valid."""
    if len(submission.places) != count:
        return f"{len(submission.places)} places for {count} responses; reload the page"
    for what, values in (
        ("qualities", submission.quality),
        ("rewrites", submission.rewrites),
        *submission.ratings.items(),
    ):
        if values and len(values) != count:
            return f"{len(values)} {what} for {count} responses; reload the page"
    if all(place is None for place in submission.places):
        return "no response is ranked yet; rank at least two, or skip"
    if sum(place is not None for place in submission.places) < 2:
        return "only one response is ranked; rank at least two, or skip"
    if any(place is not None and not 1 <= place <= count for place in submission.places):
        return f"places go from 1 to {count}"
    return None


def places_of_ratings(ratings: Sequence[int | None]) -> list[int] | None:
    """The places that follow from ratings: the best is 1, equal ones are tied; None if a rating is missing."""
    if any(rating is None for rating in ratings):
        return None
    given = [rating for rating in ratings if rating is not None]
    return [1 + sum(other > rating for other in given) for rating in given]


def problem_of_ratings(submission: Submission) -> str | None:
    """Why a submission is invalid if responses are rated and the ranking follows; None if it is valid."""
    wanted = places_of_ratings(submission.quality) if submission.quality else None
    if wanted is None:
        return "every response needs a rating from 1 to 7 here; rate the rest, or skip"
    return None if wanted == list(submission.places) else "the places do not follow from the ratings; reload the page"


def carried_over(before: StoredAnswer, submission: Submission, asks: Asks) -> Submission:
    """A correction, with the corrected answer's values of what the page no longer collects."""
    order = before.ranking.order_shown
    gone = {name: [rated.get(id_) for id_ in order] for name, rated in before.ratings.items()}
    kept = {name: values for name, values in gone.items() if name not in asks.criteria}
    given: dict[str, Any] = {"ratings": {**submission.ratings, **kept}}
    if not asks.quality and not submission.quality:
        given["quality"] = [before.quality.get(id_) for id_ in order]
    if not asks.strength and submission.strength is None:
        given["strength"] = before.strength
    if not asks.rationale and not submission.rationale:
        given["rationale"] = before.rationale
    if not asks.rewrite and not submission.rewrites:
        given["rewrites"] = [before.rewrites.get(id_) for id_ in order]
    return replace(submission, **given)


def says_the_same(row: Row[*tuple[Any, ...]], submission: Submission) -> bool:
    """Whether a stored answer has the content of ``submission``; the time taken is ignored."""
    order: list[str] = json.loads(row.order_shown)
    if problem_of(submission, len(order)):
        return False
    before, ranking = answer_of(row), answer_of(row).ranking
    rated = {name: found for name, values in submission.ratings.items() if (found := by_id(order, values))}
    return (
        [ranking.places.get(id_) for id_ in order] == list(submission.places)
        and dict(before.quality) == by_id(order, submission.quality)
        and (row.strength, row.note) == (submission.strength, submission.note)
        and dict(before.ratings) == rated
        and before.rationale == submission.rationale
        and dict(before.rewrites) == by_id(order, submission.rewrites)
    )
