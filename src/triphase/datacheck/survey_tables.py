"""The results of a survey of the data, for a terminal of any width."""

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from triphase.datacheck.source_survey import SourceSurvey
from triphase.datacheck.survey import DataSurvey
from triphase.records.visible import visible

_COUNTS = ("records", "held out", "repeated", "near-empty", "too long", "refused")
_KINDS_SHOWN = 6
_WIDEST = 10_000


def print_survey(console: Console, survey: DataSurvey, unit: str) -> None:
    """Tables of counts and of lengths if they fit; else the same as a few lines for each source."""
    tables = [_counts_table(survey), _lengths_table(survey, unit)]
    wide = console.options.update(max_width=_WIDEST)
    if all(Measurement.get(console, wide, table).maximum <= console.width for table in tables):
        for table in tables:
            console.print(table)
        return
    for line in _lines(survey, unit):
        console.print(escape(visible(line)))


def _lines(survey: DataSurvey, unit: str) -> Iterator[str]:
    for source in survey.sources:
        yield f"{source.role}: {source.name}"
        yield "  " + ", ".join(f"{heading} {count}" for heading, count in zip(_COUNTS, _counts(source), strict=True))
        if _kinds(source):
            yield f"  kinds: {_kinds(source)}"
        if source.lengths.sampled:
            yield f"  {unit}: median {_quantile(source, 0.5)}, 99 % {_quantile(source, 0.99)}"
            yield from (f"    {label}: {count}" for label, count in source.lengths.histogram())


def _counts_table(survey: DataSurvey) -> Table:
    table = Table(title="data", title_justify="left")
    for heading in ("for", "source", *_COUNTS, "kinds"):
        table.add_column(heading, justify="right" if heading in _COUNTS else "left", no_wrap=True)
    for source in survey.sources:
        table.add_row(
            source.role, escape(visible(source.name)), *map(str, _counts(source)), escape(visible(_kinds(source)))
        )
    return table


def _lengths_table(survey: DataSurvey, unit: str) -> Table:
    table = Table(title=f"lengths, in {unit}", title_justify="left")
    for heading in ("for", "median", "99 %", "histogram"):
        justify = "left" if heading in ("for", "histogram") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for source in survey.sources:
        bars = "  ".join(f"{label}: {count}" for label, count in source.lengths.histogram())
        table.add_row(source.role, _quantile(source, 0.5), _quantile(source, 0.99), bars)
    return table


def _counts(source: SourceSurvey) -> tuple[int | str, ...]:
    too_long = "–" if source.too_long is None else source.too_long
    return (source.records, source.heldout, source.repeated, source.near_empty, too_long, source.refused)


def _kinds(source: SourceSurvey) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in source.kinds.most_common(_KINDS_SHOWN) if kind)


def _quantile(source: SourceSurvey, share: float) -> str:
    value = source.lengths.quantile(share)
    return "" if value is None else str(value)
