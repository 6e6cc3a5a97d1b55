"""Rows with one rated answer each (HelpSteer), joined into rankings of consecutive rows with the same prompt.

HelpSteer 1 and 2 rate each answer from 0 to 4 on five scales; ``helpfulness`` decides, equal ratings are ties.
"""

from collections.abc import Iterator
from itertools import chain, groupby

from triphase.records import cells
from triphase.records.cells import columns_in
from triphase.records.lines import RecordError, RefuseRow, Row

_RATING = "helpfulness"
_COLUMNS = {"prompt", "response", _RATING}
_GREATEST = 1e11


def is_rated(row: Row) -> bool:
    """Whether a row has one answer and its rating."""
    return columns_in(row) >= _COLUMNS


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
    for row in answers:
        if not is_rated(row):
            row.refuse(f"no prompt, response or {_RATING}, where the rows before are rated answers")
    if len(answers) == 1:
        first.refuse(
            "is the only rated answer to its prompt, so nothing is compared; the answers to a prompt are on "
            "consecutive rows (data.on_bad_record: drop leaves it out)"
        )
    kept = {name: value for name, value in first.values.items() if name not in ("response", _RATING)}
    ratings = [cells.number(row, _RATING, row.values[_RATING], least=-_GREATEST) for row in answers]
    texts = [row.values["response"] for row in answers]
    return Row({**kept, "responses": texts, _RATING: ratings}, first.file, first.number, first.unit)
