"""Rows with one rated answer each (HelpSteer): consecutive ones of one prompt and labeler are joined into a ranking.

HelpSteer 1 and 2 rate each answer from 0 to 4 on five scales; ``helpfulness`` decides. Other files call the column
``rating`` or ``score``. The higher rating is the better one, equal ratings are ties.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

from triphase.records import cells
from triphase.records.cells import columns_in
from triphase.records.foreign import RATED
from triphase.records.lines import RecordError, RefuseRow, Row

_RATINGS = ("helpfulness", "rating", "score")
_ANSWERS = ("response", "completion", "answer", "output")
_COMPARED = {"chosen", "rejected", "responses"}
_IN_COMMON = ("prompt", "system", "system_prompt", "history", "labeler")
_ABOUT_ALL = {"prompt_id", "kind", "split", "margin"}
"""Columns that are read of a ranking, of which a row may have another value."""
_GREATEST = 1e11
_NOT_RATED = f"no prompt, answer or rating ({', '.join(_RATINGS)}), where the other rows are rated answers"
JOINED = "helpfulness"
"""The column of a joined ranking that has the ratings of its responses."""


def is_rated(row: Row) -> bool:
    """Whether a row has a prompt, one answer and its rating."""
    return _columns(row) is not None


def begins_rated(row: Row) -> bool:
    """Whether the rows that begin with this one are rated answers, of which the first may lack its rating."""
    have = columns_in(row)
    lacks_rating = "prompt" in have and bool(have & set(_ANSWERS)) and not row.values.keys().isdisjoint(_RATINGS)
    return is_rated(row) or (lacks_rating and not have & _COMPARED)


def _columns(row: Row) -> tuple[str, str] | None:
    """The first columns of an answer and of its rating; None if the row is no rated answer."""
    have = columns_in(row)
    answer = next((name for name in _ANSWERS if name in have), None)
    rating = next((name for name in _RATINGS if name in have), None)
    if answer is None or rating is None or "prompt" not in have or have & _COMPARED:
        return None
    return answer, rating


def ranked_together(rows: Iterator[Row], refused: RefuseRow) -> Iterator[Row]:
    """``rows`` unchanged; or rankings, one for each prompt, if they are rated answers.

    A prompt with a single answer is refused, since nothing is compared.
    """
    first = next(rows, None)
    if first is None:
        return
    rows = chain([first], rows)
    yield from _rankings(rows, refused) if begins_rated(first) else rows


def _rankings(rows: Iterator[Row], refused: RefuseRow) -> Iterator[Row]:
    for _, group in groupby(rows, _asked):
        answers: list[_Rated] = []
        for row in group:
            try:
                answers.append(_rated(row, answers))
            except RecordError as error:
                refused(error)
        try:
            if answers:
                yield _ranking(answers)
        except RecordError as error:
            refused(error)


def _asked(row: Row) -> tuple[str, ...]:
    """What rows that are compared have in common: the prompt with all that belongs to it, and the labeler."""
    return tuple(str(row.values.get(name)) for name in _IN_COMMON)


@dataclass(frozen=True, slots=True)
class _Rated:
    row: Row
    text: Any
    column: str
    by: str
    rating: float


def _rated(row: Row, before: Sequence[_Rated]) -> _Rated:
    """The answer of a row with its rating, which is in the column of those before it."""
    column, by = _columns(row) or row.refuse(_NOT_RATED)
    if before and by != before[0].by:
        row.refuse(f"{before[0].by} is empty or missing, but rates the answers on the rows before")
    return _Rated(row, row.values[column], column, by, cells.number(row, by, row.values[by], least=-_GREATEST))


def _ranking(answers: Sequence[_Rated]) -> Row:
    """One ranking, at the location of its first answer. A column that this row lacks comes from the rows after it."""
    first = answers[0].row
    if len(answers) == 1:
        first.refuse(
            "is the only rated answer to its prompt, so nothing is compared; write the answers to a prompt on "
            "consecutive rows (sort the file by prompt), or set data.on_bad_record: drop to leave it out"
        )
    kept, ignored = dict[str, Any](), set[str]()
    for each in answers:
        ignored |= each.row.ignored | columns_in(each.row) & {*_ANSWERS, *RATED} - {each.column, each.by}
        for name in columns_in(each.row).difference(_ANSWERS, RATED):
            value = each.row.values[name]
            if kept.setdefault(name, value) != value and name in _ABOUT_ALL:
                ignored.add(f"{name} (another one in the first row of the prompt)")
    ordered = {name: kept[name] for each in answers for name in each.row.values if name in kept}
    joined = {"responses": [each.text for each in answers], JOINED: [each.rating for each in answers]}
    ranking = Row({**ordered, **joined}, first.file, first.number, first.unit)
    ranking.ignored.update(ignored)
    return ranking
