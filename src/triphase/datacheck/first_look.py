"""A first look at a user's file: the role of its records, their lengths, and which of our columns it has."""

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triphase.errors import DataError
from triphase.records.advice import OF_TEXTS, names_in_another_case
from triphase.records.cells import columns_in
from triphase.records.conversations import turns_of
from triphase.records.forms import form_named, form_of, read_as
from triphase.records.lines import Row
from triphase.records.paths import is_file_name, is_saved_table, shown
from triphase.records.rated_rows import is_rated
from triphase.records.reading import Located, stream_demonstrations, stream_preferences, stream_prompts
from triphase.records.remarks import Remarks
from triphase.records.source_rows import read_rows
from triphase.records.types import Demonstration, Prompt
from triphase.settings.data import SourceSettings

ROLES = ("preferences", "demonstrations", "prompts")
_STREAMS: Mapping[str, Callable[..., Iterator[Located[Any]]]] = {
    "preferences": stream_preferences,
    "demonstrations": stream_demonstrations,
    "prompts": stream_prompts,
}
_ANSWERED = {"messages", "conversations", "completion", "response", "output", "answer", "chosen", "rejected",
             "responses", "response_a", "response_b"}  # fmt: skip
_LOOKED_AT = 500
_FROM_THE_HUB = 64
_TOKEN = 3.0
"""Characters per token, at the low end of what is usual: lengths are overestimated."""
_TURN = 12


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The result for one source.

    Attributes:
        source: as the settings name it, with its columns renamed if requested.
        role: demonstrations, prompts or preferences.
        form: the form that its records were recognized as.
        longest, longest_answer: tokens that 99 % of the first records, and of their answers, do not exceed; estimated.
        seen: number of records that were examined.
        unread: nonempty columns that are not read, with the number of examined records that have them.
        refused: the errors of records that cannot be used.
        remarks: what else is said about the records.
    """

    source: SourceSettings
    role: str
    form: str
    longest: int
    longest_answer: int
    seen: int
    unread: Mapping[str, int]
    refused: Sequence[DataError] = ()
    remarks: Sequence[str] = ()


def first_look(
    path: str, columns: Mapping[str, str], role: str | None = None, split: str = "train", config: str | None = None
) -> FirstLook:
    """Examine the first records of a source, as a ``role`` or as what fits.

    ``columns`` are those of all sources together: each source gets those that its records have. ``split`` and
    ``config`` are those of the data sets that have some: hub data sets, and for ``split`` directories of save_to_disk.

    Raises:
        DataError: it cannot be read, or the role of its records is ambiguous.
    """
    given: dict[str, Any] = {"path": path, "columns": dict(columns), "max_records": _LOOKED_AT}
    if not is_file_name(path, Path()):
        given |= {"streaming": True, "max_records": _FROM_THE_HUB, "split": split, "config": config}
    elif is_saved_table(Path(path)):
        given |= {"split": split}
    source = _with_its_columns(SourceSettings.model_validate(given))
    refused = list[DataError]()
    rows = list(read_rows(source, Path(), refused.append))
    if not rows:
        raise refused[0] if refused else DataError(f"{shown(path)}: contains no records")
    chosen, refused = role or _role_of(rows), []
    try:
        items = list(_STREAMS[chosen](source, Path(), refused=refused.append))
    except DataError as error:
        raise (refused or [error])[0] from None
    lengths = sorted(sum(sizes) for sizes in map(_sizes, items))
    answers = sorted(max(sizes[1:], default=0) for sizes in map(_sizes, items))
    kept = source.model_copy(update={"max_records": None, "streaming": False})
    forms = Counter(form_of(chosen, item) for item in items)
    unread, remarks = Counter(column for item in items for column in item.unread), Remarks()
    for item in items:
        remarks.add(item.row)
    return FirstLook(
        kept, chosen, read_as(forms), _most(lengths), _most(answers), len(items), unread, refused, remarks.lines()
    )


def _role_of(rows: Sequence[Row]) -> str:
    """The role of most rows.

    Raises:
        DataError: none has a known format.
    """
    fitting = Counter(tuple(role for role in ROLES if form_named(row, role) is not None) for row in rows)
    fitting.pop((), None)
    if not fitting:
        raise DataError(_unknown(rows[0]))
    ((roles, _),) = fitting.most_common(1)
    if len(roles) > 1 and any(map(is_rated, rows)) and _asks_once(rows):
        roles = roles[1:]  # one rated answer to each prompt: nothing is compared
    if roles[0] == "prompts":
        _require_case(rows)
    return roles[0]


def _require_case(rows: Sequence[Row]) -> None:
    """Refuse a file whose answers are in columns that differ from ours by case alone: it looks like prompts.

    Raises:
        DataError: names them.
    """
    for row in rows:
        found = {ours: theirs for ours, theirs in names_in_another_case(row).items() if ours in _ANSWERED}
        if found:
            pairs = ",".join(f"{ours}={theirs}" for ours, theirs in found.items())
            raise DataError(
                f"{row.file}: {', '.join(found.values())}: not read by this name; map it: --columns {pairs}, or set "
                f"the role, for example prompts:{row.file}"
            )


def _asks_once(rows: Sequence[Row]) -> bool:
    """Whether no two rows have the same prompt."""
    asked = [str(row.values.get("prompt")) for row in rows]
    return len(set(asked)) == len(asked)


def _with_its_columns(source: SourceSettings) -> SourceSettings:
    """The source with only those renamings whose column occurs in one of its records."""
    if not source.columns:
        return source
    rows = read_rows(source.model_copy(update={"columns": {}}), Path())
    have = {column for row in rows for column in row.values}
    return source.model_copy(update={"columns": {our: their for our, their in source.columns.items() if their in have}})


def _sizes(item: Located[Any]) -> list[int]:
    """Tokens of the prompt, and of the longer answer; estimated."""
    record = item.record
    prompt = record if isinstance(record, Prompt) else record.prompt
    asked = sum(_tokens(message.content) + _TURN for message in prompt.messages)
    if isinstance(record, Prompt):
        return [asked]
    texts = (record.response,) if isinstance(record, Demonstration) else (record.chosen, record.rejected)
    return [asked, max(map(_tokens, texts))]


def _tokens(text: str) -> int:
    return int(len(text) / _TOKEN) + 2


def _most(ordered: list[int]) -> int:
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0


def _unknown(row: Row) -> str:
    filled = columns_in(row)
    have = [name for name in row.values if name in filled]
    near = {name: found[0] for name in have if (found := difflib.get_close_matches(name.lower(), OF_TEXTS, 1, 0.75))}
    pairs = [f"{ours}={theirs}" for theirs, ours in near.items() if ours != theirs]
    longest = sorted(have, key=lambda name: -len(str(row.values[name])))[:2]
    texts = [name for name in have if name in longest and isinstance(row.values[name], str)]
    if not pairs:
        turns = next((name for name in have if _holds_turns(row, name)), None)
        pairs = (
            [f"conversations={turns}"] if turns is not None else [f"prompt={name}" for name in texts if len(texts) == 1]
        )
    example = (
        ",".join(pairs) or f"prompt={texts[0] if texts else 'COLUMN'},completion={texts[-1] if texts else 'COLUMN'}"
    )
    return (
        f"{row.file}: the columns {', '.join(have)[:200] or 'none'} match no known format "
        f"(docs/data.md); map them: --columns {example}{_header(row)}"
    )


def _holds_turns(row: Row, name: str) -> bool:
    turns = turns_of(row, name, row.values[name])
    return isinstance(turns, list) and any(
        isinstance(turn, Mapping) and turn.keys() & {"role", "from"} for turn in turns
    )


def _header(row: Row) -> str:
    """A table without a header has a record in the place of its column names."""
    names = [str(name) for name in row.values]
    alike = any(sign in name.strip() for name in names for sign in " .?!")
    return "; is the first line a record? Then write one above it that names the columns" if alike else ""
