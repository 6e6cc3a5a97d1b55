"""Records passed in memory, written to a data file of the run, which can then resume without them.

The file is named after its content. So another start with the same records finds it, and one with others never
overwrites what a phase has read.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from triphase.errors import DataError, SettingsError
from triphase.records.columns import asked
from triphase.records.files import make_directory, write_atomically
from triphase.records.identity import prompt_id
from triphase.records.lines import Row
from triphase.records.types import Prompt

Place: TypeAlias = str | os.PathLike[str]
"""A path; for a `Run` its directory."""
Conversation: TypeAlias = Sequence[Mapping[str, str]]
"""Messages with `role` and `content`, the last one the user's."""
Records: TypeAlias = Place | Iterable[Mapping[str, Any]]
"""A data file or a hub id, or rows with the columns of a data file."""
Prompts: TypeAlias = Iterable[str | Conversation | Mapping[str, Any]]
"""Texts, conversations, or rows with the columns of a file of prompts."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source of records: its path, and its content if it was passed in memory."""

    path: str
    content: bytes | None = None

    def write(self) -> None:
        """Write what was passed in memory, unless it exists already."""
        path = Path(self.path)
        if self.content is not None and not (path.is_file() and path.read_bytes() == self.content):
            make_directory(path.parent)
            write_atomically(path, self.content)


def source_of(role: str, records: Records | Prompts, folder: Path) -> Source:
    """The source of the records of a role (demonstrations, prompts, preferences) of the run in ``folder``.

    Raises:
        DataError: a record is not a mapping, or contains what JSON cannot represent.
    """
    if isinstance(records, str | os.PathLike):
        return Source(os.fspath(records))
    _require_rows(role, records, "a file, a hub id, or rows")
    rows = enumerate(records, start=1)
    content = b"".join(_line(role, number, _row(record) if role == "prompts" else record) for number, record in rows)
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Source(str(folder.absolute() / "data" / f"{role}-{digest}.jsonl"), content)


def prompts_of(given: Prompts) -> list[Prompt]:
    """Prompts, in order, as from a file; the id of one is a hash of its content.

    Raises:
        DataError: one is not a valid prompt.
    """
    if isinstance(given, str):
        raise DataError("prompts: is a single string; give a list of prompts")
    _require_rows("prompts", given, "a list of prompts")
    found = []
    for number, item in enumerate(given, start=1):
        row = _row(item)
        if not isinstance(row, Mapping):
            raise _no_row("prompts", number, row)
        messages = asked(Row(row, "prompts", number, unit="row"))
        found.append(Prompt(prompt_id(messages), messages))
    return found


def place_text(what: str, value: Any) -> str:
    """A path or name as text; ``what`` is the parameter, for messages.

    Raises:
        SettingsError: it is neither.
    """
    if not isinstance(value, str | os.PathLike):
        raise SettingsError(f"{what}: is {value!r:.40} ({type(value).__name__}); expected a path or a name")
    return os.fspath(value)


def _require_rows(role: str, given: Any, wanted: str) -> None:
    """Refuse what does not yield rows; a mapping and a table would yield the names of their columns."""
    kind = type(given).__name__
    if isinstance(given, Mapping) or hasattr(given, "columns"):
        raise DataError(
            f"{role}: is {kind}, which yields the names of its columns; give a list of rows (to_dict('records') of a "
            "table of pandas)"
        )
    if not isinstance(given, Iterable):
        raise DataError(f"{role}: is {kind}; give {wanted}")


def _row(item: Any) -> Any:
    """A prompt as a row: texts and conversations go into its column `prompt`."""
    is_conversation = isinstance(item, Sequence) and not isinstance(item, bytes)
    return {"prompt": item if isinstance(item, str) else list(item)} if is_conversation else item


def _line(role: str, number: int, row: Any) -> bytes:
    if not isinstance(row, Mapping):
        raise _no_row(role, number, row)
    try:
        return (json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{role}: row {number}: cannot be written as JSON ({error}); use plain values") from None


def _no_row(role: str, number: int, row: Any) -> DataError:
    return DataError(f"{role}: row {number}: is {type(row).__name__}, not a mapping of columns to values")
