"""Read the configuration and every record of its data, in a stream, before any model is loaded."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from triphase.cli import deferred
from triphase.cli.arguments import Config, Overrides, settings_of
from triphase.datacheck.agenda import todo, what_is_left_out
from triphase.datacheck.conclusions import Judge
from triphase.datacheck.demands import require_settings
from triphase.datacheck.model_names import adapter_note, place_without_torch
from triphase.datacheck.near_duplicates import find_near_duplicates
from triphase.datacheck.quarantine import Quarantine
from triphase.datacheck.run_data import drops
from triphase.datacheck.scorer_columns import gives_columns
from triphase.datacheck.shortening import length_notes
from triphase.datacheck.source_survey import SHOWN, SourceSurvey
from triphase.datacheck.survey import DataSurvey, survey_data
from triphase.datacheck.survey_json import survey_json
from triphase.datacheck.survey_tables import print_survey
from triphase.datacheck.tokenizer_checks import token_count, tokenizer_notes
from triphase.errors import DataError
from triphase.records.files import atomic_file
from triphase.records.forms import read_as
from triphase.records.lines import partial_columns, unread_columns
from triphase.records.paths import display_name
from triphase.records.source_rows import other_files_notes
from triphase.records.visible import visible, visible_json
from triphase.settings.schema import RunSettings


def check(
    config: Config,
    /,
    *overrides: Overrides,
    quarantine: Annotated[
        Path | None, Parameter(help="Move unusable records to this file (JSON lines) and continue.")
    ] = None,
    json: Annotated[bool, Parameter(help="Print one JSON document.")] = False,
) -> None:
    """Check the configuration and every record; loads no model."""
    settings = settings_of(config, overrides)
    trains = deferred.can_train()
    standing = deferred.require_resumable(settings) if trains else []
    count = token_count(settings)
    judge = Judge(settings, deferred.check_model if trains else lambda each: place_without_torch(each.model))
    names = judge.control_names
    if quarantine is None:
        survey = survey_data(settings, count, examine=judge.examine, control=names)
    else:
        with atomic_file(quarantine) as file:
            survey = survey_data(settings, count, Quarantine(file).refuse, judge.examine, names)
    console = Console(soft_wrap=True, highlight=False, quiet=json)

    def say(text: str) -> None:
        console.print(escape(visible(text)))  # names of columns and kinds come from the user's file

    def note(lines: Iterable[str]) -> None:
        for line in lines:
            say(f"note: {line}")

    unit = "tokens" if count is not None else "tokens, estimated as characters / 4"
    notes = [
        *standing,
        *_notes(settings, survey),
        *_near_duplicates(settings, survey, judge),
        *tokenizer_notes(settings),
    ]
    try:
        notes += require_settings(settings, todo(settings))
    finally:  # what the data hold is told, whatever the settings lack
        if json:
            print(visible_json(survey_json(survey, unit, notes), indent=1))
        print_survey(console, survey, unit)
        note(notes)
    _require_usable(survey, say, aside=quarantine is not None or drops(settings))
    if drops(settings) and survey.refused:
        say(f"{survey.refused} records cannot be used and are left out (data.on_bad_record: drop)")
    if quarantine is not None:
        say(f"{survey.refused} records are moved to {quarantine}")
    verdict = judge.verdict(survey)
    if judge.collided:
        say(
            f"{len(judge.collided)} records have the id of another prompt and are left out too; the first: "
            f"{judge.collided[0]}"
        )
    note(judge.contradicted)
    for line in what_is_left_out(settings):
        say(line)
    say(f"{config}: {verdict}")
    drop = ("--data.on-bad-record", "drop") if survey.refused and not drops(settings) else ()
    say(f"next    {shlex.join(['triphase', 'run', str(config), *overrides, *drop])}")


def _require_usable(survey: DataSurvey, say: Callable[[str], None], *, aside: bool) -> None:
    """Refuse unusable records, unless they are set ``aside``: then only files without any other.

    Raises:
        DataError: there are some.
    """
    failed = [source for source in survey.sources if source.failure]
    if not (failed if aside else survey.errors):
        return
    errors = [source.problems[0] for source in failed] if aside else survey.errors
    for error in errors[1:SHOWN]:
        say(error)
    more = f" ({survey.refused} records cannot be used)" if survey.refused > 1 else ""
    raise DataError(f"{errors[0]}{more}")


def _other_files(settings: RunSettings) -> Iterator[str]:
    for role in ("demonstrations", "prompts", "preferences"):
        for source in getattr(settings.data, role):
            yield from (f"{display_name(source.path, Path(source.path))}: {line}" for line in other_files_notes(source))


def _read_how(source: SourceSurvey) -> Iterator[str]:
    if source.forms:
        yield read_as(source.forms)
    yield from source.remarks.lines()
    yield from length_notes({"left out": source.left_out, "shortened": source.shortened, "alike": source.alike})


def _near_duplicates(settings: RunSettings, survey: DataSurvey, judge: Judge) -> Iterator[str]:
    """The near-duplicates; sources are surveyed in the order of the settings."""
    if (found := find_near_duplicates(settings, judge.as_used)) is None:
        return
    numbers = Counter[str]()
    for source in survey.sources:
        yield from (f"{source.name}: {line}" for line in found.notes(source.role, numbers[source.role]))
        numbers[source.role] += 1


def _notes(settings: RunSettings, survey: DataSurvey) -> Iterator[str]:
    if settings.model.adapter is not None:
        yield adapter_note(settings.model)
    if survey.leaked:
        yield f"{survey.leaked} training records have a prompt that is held out elsewhere (see their `split`)"
    if survey.contradicted:
        yield f"{survey.contradicted} comparisons are contradicted by their opposite (A over B, and B over A)"
    yield from _other_files(settings)
    for source in survey.sources:
        if gives_columns(settings, source.role):
            line = partial_columns(source.columns, source.records)
        else:
            line = unread_columns(source.columns) if source.columns else None
        if line is not None:
            yield f"{source.name}: {line}"
        if source.records and not 0 < source.heldout < source.records and source.role != "demonstrations":
            yield f"{source.name}: {source.heldout} of {source.records} prompts are held out; some should be, not all"
        yield from (f"{source.name}: {line}" for line in _read_how(source))
        yield from (f"{source.name}: {line}" for line in _of_texts(source, settings))


def _of_texts(source: SourceSurvey, settings: RunSettings) -> Iterator[str]:
    """Notes on the texts of a source's records."""
    if source.controls:
        counts = ", ".join(f"{column} {count}" for column, count in source.controls.items())
        allowed = settings.model.texts_write_control_tokens
        yield f"records whose texts contain a control token ({source.written}): {counts}; " + (
            "it is encoded as that token (model.texts_write_control_tokens: true)"
            if allowed
            else "it is encoded as plain text"
        )
    if source.near_empty:
        yield f"{source.near_empty} records have a response of one or two characters"
    if source.in_context:
        yield (
            f"{source.in_context} demonstrations have several responses; the last is learned, and those before it are "
            "its context"
        )
