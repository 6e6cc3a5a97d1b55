"""Rows as a CSV file that spreadsheets open and `label import` reads: lists and objects are JSON in their cell.

A text that a spreadsheet would run as a formula (it begins with =, +, -, @, their wide forms, or a break) gets an
apostrophe before it, which the reader removes; responses and prompts are in lists, as JSON.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from triphase.records.spreadsheet_formulas import protected
from triphase.records.visible import visible_json


def csv_text(rows: Sequence[Mapping[str, Any]], empty: Sequence[str] = ()) -> str:
    """The rows under a header of their columns, in the order of first occurrence; ``empty`` is the header without
    rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) or list(empty)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\r\n")  # line ends are quoted in a cell: either character alone, too
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return file.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return protected(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return visible_json(value)
