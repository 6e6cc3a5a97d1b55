"""Read the configuration and every record of its data, in a stream, before any model is loaded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from triphase.commands.actions import Config, Overrides, settings_of
from triphase.commands.hazards import hazards_of, token_count
from triphase.commands.judgement import Judge
from triphase.commands.preflight import STEPS, require_settings
from triphase.commands.run_data import drops
from triphase.commands.survey import SHOWN, DataSurvey, SourceSurvey, survey_data
from triphase.commands.survey_parts import line_of
from triphase.errors import DataError
from triphase.records.files import atomic_file
from triphase.records.lines import numbered_lines
from triphase.settings.schema import RunSettings

_COUNTS = ("records", "held out", "repeated", "near-empty", "too long", "refused")


def check(
    config: Config,
    /,
    *overrides: Overrides,
    quarantine: Annotated[
        Path | None, Parameter(help="Set records that cannot be used aside in this file (JSON lines), and go on.")
    ] = None,
) -> None:
    """Read the configuration and every record of its data, before any model is loaded."""
    settings = settings_of(config, overrides)
    count, judge = token_count(settings), Judge(settings)
    if quarantine is None:
        survey = survey_data(settings, count, examine=judge.problem)
    else:
        with atomic_file(quarantine) as file:
            survey = survey_data(settings, count, _Quarantine(file).refuse, judge.problem)
    console = Console(soft_wrap=True, highlight=False)
    console.print(_table(survey))
    console.print(_lengths(survey, "tokens" if count is not None else "tokens, taken as characters / 4"))
    for note in [*_notes(settings, survey), *hazards_of(settings)]:
        console.print(f"note: {escape(note)}")
    require_settings(settings, STEPS)
    _require_usable(survey, console, aside=quarantine is not None or drops(settings))
    if quarantine is not None:
        console.print(f"{survey.refused} records are set aside in {escape(str(quarantine))}")
    console.print(f"{escape(str(config))}: {judge.verdict(survey)}")


def _require_usable(survey: DataSurvey, console: Console, *, aside: bool) -> None:
    """Refuse records that cannot be used, unless they are set ``aside``: then only files without any other.

    Raises:
        DataError: there are some.
    """
    unread = [source for source in survey.sources if source.unread or (source.refused and not source.records)]
    if not survey.refused or (aside and not unread):
        return
    for error in survey.errors[1:SHOWN]:
        console.print(escape(error))
    more = f" ({survey.refused} records cannot be used)" if survey.refused > 1 else ""
    first = unread[0].errors[-1 if unread[0].unread else 0] if aside else survey.errors[0]
    raise DataError(f"{first}{more}")


class _Quarantine:
    """Writes refused records with their place, the reason, and their text where it is a line of a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lines: dict[str, Iterator[tuple[int, bytes]]] = {}

    def refuse(self, survey: SourceSurvey, error: DataError) -> None:
        """Count a refused record and set it aside."""
        survey.refuse(error)
        number = line_of(survey.path, str(error))
        row = {"file": survey.path, "line": number, "reason": str(error)}
        if number and not survey.path.endswith((".csv", ".json", ".parquet")):
            row["text"] = self._line(survey.path, number)
        self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def _line(self, path: str, wanted: int) -> str | None:
        """One line of a file, whose lines are asked for in rising order."""
        lines = self._lines.setdefault(path, numbered_lines(Path(path), path))
        for number, line in lines:
            if number >= wanted:
                return line.decode("utf-8", "backslashreplace").rstrip("\r\n") if number == wanted else None
        return None


def _table(survey: DataSurvey) -> Table:
    table = Table(title="data", title_justify="left")
    for heading in ("for", "source", *_COUNTS, "kinds"):
        table.add_column(heading, justify="right" if heading in _COUNTS else "left")
    for source in survey.sources:
        kinds = ", ".join(f"{kind} {count}" for kind, count in source.kinds.most_common(6) if kind)
        counts = (
            *(source.records, source.heldout, source.repeated, source.near_empty),
            *(source.lengths.too_long, source.refused),
        )
        table.add_row(source.role, escape(source.path), *map(str, counts), escape(kinds))
    return table


def _lengths(survey: DataSurvey, unit: str) -> Table:
    table = Table(title=f"lengths, in {unit}", title_justify="left")
    for heading in ("for", "median", "99 %", "histogram"):
        table.add_column(heading, justify="left" if heading in ("for", "histogram") else "right")
    for source in survey.sources:
        bars = "  ".join(f"{label}: {count}" for label, count in source.lengths.histogram())
        quantiles = (source.lengths.quantile(0.5), source.lengths.quantile(0.99))
        table.add_row(source.role, *("" if value is None else str(value) for value in quantiles), bars)
    return table


def _notes(settings: RunSettings, survey: DataSurvey) -> Iterator[str]:
    if survey.leaked:
        yield f"{survey.leaked} records for training have a prompt that is held out elsewhere (see their `split`)"
    if survey.contradicted:
        yield f"{survey.contradicted} comparisons stand beside their opposite (A over B, and B over A)"
    for source in survey.sources:
        if source.records and not 0 < source.heldout < source.records and source.role != "demonstrations":
            yield f"{source.path}: {source.heldout} of {source.records} prompts are held out; some should be, not all"
        if source.lengths.too_long:
            yield (
                f"{source.path}: {source.lengths.too_long} records pass model.max_length = {settings.model.max_length} "
                "(template counted); training would refuse them, nothing is cut"
            )
        if source.near_empty:
            yield f"{source.path}: {source.near_empty} records have a response of one or two characters"
