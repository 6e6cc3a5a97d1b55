"""Statistics of one source of data, or one part of it, counted in a stream.

Eight bytes per record and prompt (its hash) stay in memory, so that files larger than memory can be surveyed.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triphase.datacheck.hashes import hash_of
from triphase.datacheck.lengths import SourceLengths
from triphase.datacheck.shortening import Rests, Shortened, conversation
from triphase.errors import DataError
from triphase.records.forms import form_of
from triphase.records.identity import prompt_id
from triphase.records.lines import WHOLE, Part
from triphase.records.paths import display_name
from triphase.records.reading import Located, stream_demonstrations, stream_preferences, stream_prompts
from triphase.records.remarks import Remarks
from triphase.records.types import Comparison, Demonstration, Prompt
from triphase.settings.data import SourceSettings
from triphase.tokens.encoding import TooLong

SHOWN = 10
NEAR_EMPTY = 3
"""A response of fewer characters is near-empty: worth a look, but not an error."""
_HERE = Path()
_ANSWERS = ("response", "chosen", "rejected")
Refused = Callable[["SourceSurvey", DataError], None]
Examine = Callable[[str, Located[Any]], DataError | Shortened | str | None]
"""(role, record) → why the model cannot process it, or what happens to it if it is too long."""


@dataclass(slots=True)
class SourceSurvey:
    """Statistics of one source.

    ``refused`` counts the unusable records, ``errors`` are the first of them; ``failure`` says why the file could
    not be read to its end. ``too_long`` counts the records over the model's limit, None if there was no model to
    encode them; ``left_out`` and ``shortened`` count what was done with them (`data.too_long`; else they are
    refused), ``alike`` those of them that then have the same prompt as another one; ``forms`` are the forms that
    records were recognized as. ``in_context`` counts the demonstrations with responses before the last, which are
    not learned. ``columns`` counts the records with a nonempty column that is not read; ``controls`` those with a
    column in which ``control`` finds the name of a control token; ``written`` is the first.
    """

    role: str
    path: str
    lengths: SourceLengths
    records: int = 0
    heldout: int = 0
    repeated: int = 0
    near_empty: int = 0
    in_context: int = 0
    refused: int = 0
    too_long: int | None = None
    left_out: int = 0
    shortened: int = 0
    alike: int = 0
    failure: str = ""
    kinds: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    control: re.Pattern[str] | None = None
    controls: Counter[str] = field(default_factory=Counter)
    written: str = ""
    remarks: Remarks = field(default_factory=Remarks)
    errors: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The source's name: relative to the working directory if it is inside it."""
        return display_name(self.path, Path(self.path))

    @property
    def problems(self) -> list[str]:
        """The first errors of records, then that of the file."""
        return [*self.errors, self.failure] if self.failure else self.errors

    def refuse(self, error: DataError) -> None:
        """Count an unusable record."""
        self.refused += 1
        if len(self.errors) < SHOWN:
            self.errors.append(str(error))


@dataclass(slots=True)
class Seen:
    """Hashes of one source's contents: prompts trained on and held out, comparisons, whole records, ids.

    ``named`` contains two for each prompt with its own id: of the id, and of the conversation. ``shortened`` contains
    three for each prompt that is shortened: its line, and the hashes of `Shortened`. ``trained_short`` contains two for
    each of them that is trained on, the whole and the rest, ``trained`` one for each other.
    """

    trained: "array[int]" = field(default_factory=lambda: array("Q"))
    trained_short: "array[int]" = field(default_factory=lambda: array("Q"))
    heldout: "array[int]" = field(default_factory=lambda: array("Q"))
    compared: "array[int]" = field(default_factory=lambda: array("Q"))
    wholes: "array[int]" = field(default_factory=lambda: array("Q"))
    ids: "array[int]" = field(default_factory=lambda: array("Q"))
    named: "array[int]" = field(default_factory=lambda: array("Q"))
    shortened: "array[int]" = field(default_factory=lambda: array("Q"))

    def extend(self, other: "Seen") -> None:
        """Add the hashes of another part of the source."""
        for name in ("trained", "trained_short", "heldout", "compared", "wholes", "ids", "named", "shortened"):
            getattr(self, name).extend(getattr(other, name))

    def alike(self, rests: Rests) -> int:
        """How many prompts are shortened to what is left of another one, here or in ``rests``, in the file's order."""
        numbers = iter(self.shortened)
        entries = sorted(zip(numbers, numbers, numbers, strict=True), key=lambda entry: entry[0])
        return sum(rests.take(Shortened(rest, whole)) for _, rest, whole in entries)


Stream = Callable[..., Iterator[Located[Demonstration] | Located[Prompt] | Located[Comparison]]]
STREAMS: dict[str, Stream] = {
    "demonstrations": stream_demonstrations,
    "prompts": stream_prompts,
    "preferences": stream_preferences,
}


def survey_source(
    survey: SourceSurvey,
    source: SourceSettings,
    heldout_share: float,
    refused: Refused,
    examine: Examine | None = None,
    part: Part = WHOLE,
) -> tuple[SourceSurvey, Seen]:
    """Read one source, or one part of it, and count."""
    seen = Seen()
    try:
        for item in STREAMS[survey.role](source, _HERE, heldout_share, lambda error: refused(survey, error), part):
            problem = None
            if examine is not None:
                problem = examine(survey.role, item)
                too_long = isinstance(problem, TooLong | Shortened | str)
                survey.too_long = (survey.too_long or 0) + too_long
            survey.forms[form_of(survey.role, item)] += 1
            if isinstance(problem, DataError):
                refused(survey, item.refused(problem))
                _measure(survey, item.record)
            elif problem == "left out":
                survey.left_out += 1
                _measure(survey, item.record)
            else:
                if isinstance(problem, Shortened):
                    survey.shortened += 1
                    seen.shortened.extend((0 if item.row is None else item.row.number, problem.rest, problem.whole))
                _count(survey, seen, item, problem.rest if isinstance(problem, Shortened) else None)
    except DataError as error:  # the file itself: absent, damaged, or without a record
        survey.failure = str(error)
    survey.lengths.finish()
    return survey, seen


def _count(
    survey: SourceSurvey,
    seen: Seen,
    item: Located[Demonstration] | Located[Prompt] | Located[Comparison],
    rest: int | None,
) -> None:
    record = item.record
    prompt = record if isinstance(record, Prompt) else record.prompt
    asked = conversation(prompt.messages)
    key = hash_of(asked if prompt.messages or isinstance(record, Prompt | Comparison) else record.response)
    survey.records += 1
    survey.columns.update(item.unread)
    survey.remarks.add(item.row)
    answers: tuple[str, ...] = ()
    if isinstance(record, Demonstration):
        answers = (record.response,)
        survey.in_context += any([message.role == "assistant" for message in prompt.messages])
        survey.kinds[record.kind] += 1
    else:
        survey.kinds[prompt.kind] += 1
    if isinstance(record, Comparison):
        answers = (record.chosen, record.rejected)
        seen.compared.append(_ordered_hash(asked, *answers))
    seen.wholes.append(hash_of(asked, *answers))
    if item.id:
        seen.ids.append(hash_of(item.id))
    if not isinstance(record, Demonstration) and not prompt.id.startswith(prompt_id(prompt.messages)):
        seen.named.extend((hash_of(prompt.id), key))
    survey.near_empty += any([len(answer.strip()) < NEAR_EMPTY for answer in answers])
    _measure(survey, record)
    if prompt.split == "heldout":
        survey.heldout += 1
        seen.heldout.extend((key,) if rest is None else (key, rest))
    elif answers and rest is not None:
        seen.trained_short.extend((key, rest))
    elif answers:
        seen.trained.append(key)


def _measure(survey: SourceSurvey, record: Demonstration | Prompt | Comparison) -> None:
    if survey.control is not None:
        _find_controls(survey, survey.control, record)
    if isinstance(record, Prompt):
        survey.lengths.add(record.messages, ())
    elif isinstance(record, Comparison):
        survey.lengths.add(record.prompt.messages, (record.chosen, record.rejected))
    else:
        survey.lengths.add(record.prompt.messages, (record.response,))


def _find_controls(survey: SourceSurvey, control: re.Pattern[str], record: Demonstration | Prompt | Comparison) -> None:
    prompt = record if isinstance(record, Prompt) else record.prompt
    texts = {"prompt": "\n".join(message.content for message in prompt.messages)}
    texts |= {name: getattr(record, name) for name in _ANSWERS if hasattr(record, name)}
    for column, text in texts.items():
        found = control.search(text)
        if found is not None:
            survey.controls[column] += 1
            survey.written = survey.written or found[0]


def _ordered_hash(asked: str, chosen: str, rejected: str) -> int:
    """The same for both orders of two answers except for the last bit, which distinguishes the orders."""
    first, second = sorted((chosen, rejected))
    return (hash_of(asked, first, second) & ~1) | (first == chosen)
