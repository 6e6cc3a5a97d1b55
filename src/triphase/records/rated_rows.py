"""Rows with one rated answer each (HelpSteer), joined into rankings of consecutive rows with the same prompt.

HelpSteer 1 and 2 rate each answer from 0 to 4 on five scales; ``helpfulness`` decides. Other files call the column
``rating`` or ``score``. The higher rating is the better one, equal ratings are ties.
"""

from collections.abc import Iterator
from itertools import chain, groupby

from triphase.records import cells
from triphase.records.cells import columns_in
from triphase.records.foreign import RATED
from triphase.records.lines import RecordError, RefuseRow, Row

_RATINGS = ("helpfulness", "rating", "score")
_ANSWERS = ("response", "completion", "answer", "output")
_COMPARED = {"chosen", "rejected", "responses"}
_GREATEST = 1e11
_NOT_RATED = f"no prompt, answer or rating ({', '.join(_RATINGS)}), where the rows before are rated answers"
JOINED = "helpfulness"
"""The column of a joined ranking that has the ratings of its responses."""


def is_rated(row: Row) -> bool:
    """Whether a row has a prompt, one answer and its rating."""
    return _columns(row) is not None


def _columns(row: Row) -> tuple[str, str] | None:
    """The first columns of an answer and of its rating; None if the row is no rated answer."""
    have = columns_in(row)
    answer = next((name for name in _ANSWERS if name in have), None)
    rating = next((name for name in _RATINGS if name in have), None)
    if answer is None or rating is None or "prompt" not in have or have & _COMPARED:
        return None
    return answer, rating


def ranked_together(rows: Iterator[Row], refused: RefuseRow) -> Iterator[Row]:
    """``rows`` unchanged; or rankings, one for each prompt, if the first one has a rated answer.

    A prompt with a single answer is refused, since nothing is compared.
    """
    first = next(rows, None)
    if first is None:
        return
    rows = chain([first], rows)
    yield from _rankings(rows, refused) if is_rated(first) else rows


def _rankings(rows: Iterator[Row], refused: RefuseRow) -> Iterator[Row]:
    for _, group in groupby(rows, lambda row: str(row.values.get("prompt"))):
        answers = list(group)
        try:
            yield _ranking(answers)
        except RecordError as error:
            refused(error)


def _ranking(answers: list[Row]) -> Row:
    """One ranking, at the location of its first answer."""
    first = answers[0]
    found = [_columns(row) or row.refuse(_NOT_RATED) for row in answers]
    if len(answers) == 1:
        first.refuse(
            "is the only rated answer to its prompt, so nothing is compared; write the answers to a prompt on "
            "consecutive rows (sort the file by prompt), or set data.on_bad_record: drop to leave it out"
        )
    (answer, rating), *others = found
    for row, other in zip(answers[1:], others, strict=True):
        if other[1] != rating:
            row.refuse(f"{rating} is empty or missing, but rates the answers on the rows before")
    kept = {name: value for name, value in first.values.items() if name not in (*_ANSWERS, *RATED)}
    ratings = [cells.number(row, rating, row.values[rating], least=-_GREATEST) for row in answers]
    texts = [row.values[column] for row, (column, _) in zip(answers, found, strict=True)]
    ranking = Row({**kept, "responses": texts, JOINED: ratings}, first.file, first.number, first.unit)
    ranking.ignored.update(first.ignored, columns_in(first) & {*_ANSWERS, *RATED} - {answer, rating})
    return ranking
