"""Cells that a spreadsheet would run as a formula, and the apostrophe that prevents it: added by exports, removed
again.

A text that itself begins with an apostrophe followed by a formula's character gets another one, so that removing one
restores the text, whatever it was.
"""

import re

_RUNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n"
_NEEDS, _HAS = re.compile(f"'*[{_RUNS}]"), re.compile(f"'+[{_RUNS}]")
NAMES = frozenset(
    {
        "id", "prompt_id", "response_id", "labeler", "note", "rationale", "kind", "split", "purpose", "campaign",
        "model", "model_a", "model_b", "chosen_model", "rejected_model",
    }
)  # fmt: skip
"""Columns that exports write as bare text; prompts and responses are in lists, as JSON, and need no apostrophe."""


def protected(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return f"'{text}" if _NEEDS.match(text) else text


def unprotected(cell: str) -> str:
    """The text of a cell that ``protected`` wrote."""
    return cell[1:] if _HAS.match(cell) else cell
