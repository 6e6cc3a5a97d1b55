"""Read the configuration and every record of its data, in a stream, before any model is loaded.

What it holds in memory is one hash for each record, so that files larger than memory can be checked.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from triphase.commands.actions import Config, Overrides, settings_of
from triphase.errors import DataError
from triphase.records.identity import prompt_id
from triphase.records.reading import Located, stream_demonstrations, stream_preferences, stream_prompts
from triphase.records.types import Comparison, Demonstration, Prompt
from triphase.settings.schema import RunSettings

_SHOWN = 10
_HERE = Path()


@dataclass(slots=True)
class SourceSurvey:
    """What one source holds. ``refused`` counts the records that cannot be used; ``errors`` are the first of them."""

    role: str
    path: str
    records: int = 0
    heldout: int = 0
    repeated: int = 0
    refused: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def refuse(self, error: DataError) -> None:
        self.refused += 1
        if len(self.errors) < _SHOWN:
            self.errors.append(str(error))


@dataclass(slots=True)
class DataSurvey:
    """What all sources hold together.

    ``leaked`` counts demonstrations and comparisons for training whose prompt is held out elsewhere;
    ``contradicted`` the comparisons of which the opposite is there too.
    """

    sources: list[SourceSurvey]
    leaked: int
    contradicted: int

    @property
    def errors(self) -> list[str]:
        return [error for source in self.sources for error in source.errors]

    @property
    def refused(self) -> int:
        return sum(source.refused for source in self.sources)


def check(config: Config, /, *overrides: Overrides) -> None:
    """Read the configuration and every record of its data, before any model is loaded."""
    settings = settings_of(config, overrides)
    survey = survey_data(settings)
    console = Console(soft_wrap=True, highlight=False)
    console.print(_table(survey))
    for note in _notes(settings, survey):
        console.print(f"note: {escape(note)}")
    if survey.refused:
        for error in survey.errors[1:_SHOWN]:
            console.print(escape(error))
        more = f" ({survey.refused} records cannot be used)" if survey.refused > 1 else ""
        raise DataError(f"{survey.errors[0]}{more}")
    console.print(f"{escape(str(config))}: settings and data are in order")


def survey_data(settings: RunSettings) -> DataSurvey:
    """Read every record that the settings name; those that cannot be used are counted, not raised."""
    seen, share, data = _Seen(), settings.data.heldout_share, settings.data
    sources = []
    for source in data.demonstrations:
        survey = SourceSurvey("demonstrations", source.path)
        sources.append(_surveyed(survey, stream_demonstrations(source, _HERE, share, survey.refuse), seen))
    for source in data.prompts:
        survey = SourceSurvey("prompts", source.path)
        sources.append(_surveyed(survey, stream_prompts(source, _HERE, share, survey.refuse), seen))
    for source in data.preferences:
        survey = SourceSurvey("preferences", source.path)
        sources.append(_surveyed(survey, stream_preferences(source, _HERE, share, survey.refuse), seen))
    leaked = sum(count for prompt, count in seen.trained.items() if prompt in seen.heldout)
    contradicted = sum(count for (a, b), count in seen.compared.items() if (b, a) in seen.compared)
    return DataSurvey(sources, leaked, contradicted)


@dataclass(slots=True)
class _Seen:
    """Hashes of what was read, over all sources."""

    trained: Counter[str] = field(default_factory=Counter)
    heldout: set[str] = field(default_factory=set)
    compared: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)


def _surveyed(
    survey: SourceSurvey, records: Iterator[Located[Demonstration] | Located[Prompt] | Located[Comparison]], seen: _Seen
) -> SourceSurvey:
    before: set[bytes] = set()
    try:
        for item in records:
            _count(survey, item.record, before, seen)
    except DataError as error:
        survey.refuse(error)
    return survey


def _count(survey: SourceSurvey, record: Demonstration | Prompt | Comparison, before: set[bytes], seen: _Seen) -> None:
    prompt = record if isinstance(record, Prompt) else record.prompt
    key = prompt_id(prompt.messages)
    survey.records += 1
    survey.kinds[record.kind if isinstance(record, Demonstration) else prompt.kind] += 1
    parts = [key]
    if isinstance(record, Demonstration):
        parts.append(record.response)
    elif isinstance(record, Comparison):
        parts += [record.chosen, record.rejected]
        seen.compared[(_hash(key, record.chosen), _hash(key, record.rejected))] += 1
    whole = _hash(*parts)
    survey.repeated += whole in before
    before.add(whole)
    if prompt.split == "heldout":
        survey.heldout += 1
        seen.heldout.add(key)
    elif not isinstance(record, Prompt):
        seen.trained[key] += 1


def _hash(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).digest()


def _table(survey: DataSurvey) -> Table:
    table = Table(title="data", title_justify="left")
    for heading in ("for", "source", "records", "held out", "repeated", "refused", "kinds"):
        table.add_column(
            heading, justify="right" if heading in ("records", "held out", "repeated", "refused") else "left"
        )
    for source in survey.sources:
        kinds = ", ".join(f"{kind} {count}" for kind, count in source.kinds.most_common(6) if kind)
        counts = (source.records, source.heldout, source.repeated, source.refused)
        table.add_row(source.role, escape(source.path), *map(str, counts), escape(kinds))
    return table


def _notes(settings: RunSettings, survey: DataSurvey) -> Iterator[str]:
    roles = {source.role for source in survey.sources}
    if "demonstrations" not in roles:
        yield "data.demonstrations is empty: phase 1 cannot run"
    if roles <= {"demonstrations"}:
        yield "there are neither prompts nor preferences: nothing can be sampled, ranked or trained after phase 1"
    if settings.labelling.source == "none" and "preferences" not in roles:
        yield "labelling.source is none and data.preferences is empty: the reward model has nothing to learn from"
    if survey.leaked:
        yield f"{survey.leaked} records for training have a prompt that is held out elsewhere (see their `split`)"
    if survey.contradicted:
        yield f"{survey.contradicted} comparisons stand beside their opposite (A over B, and B over A)"
    for source in survey.sources:
        if source.records and not 0 < source.heldout < source.records and source.role != "demonstrations":
            yield f"{source.path}: {source.heldout} of {source.records} prompts are held out; some should be, not all"
