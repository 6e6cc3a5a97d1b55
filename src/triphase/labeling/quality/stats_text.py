"""The statistics as text, for ``label stats`` and the lead's page."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from triphase.labeling.quality.agreement import Estimate
from triphase.labeling.quality.labeling_statistics import Statistics
from triphase.monitoring.wording import counted, number
from triphase.records.visible import visible


def print_statistics(statistics: Statistics, console: Console) -> None:
    """Print progress, agreement and each labeler's record."""
    console.print(Group(*_parts(statistics)))


def _parts(statistics: Statistics) -> list[RenderableType]:
    progress = statistics.progress
    pace = "" if progress.per_hour is None else f", {progress.per_hour:.0f} per hour"
    left = "" if progress.seconds_left is None else f", about {progress.seconds_left / 3600:.1f} h of work left"
    head = Table(show_header=False, box=None)
    for name, value in (
        ("answers", f"{progress.filled} of {progress.slots} slots over {progress.items} items{pace}{left}"),
        ("rankings that count", str(statistics.rankings)),
        ("open flags", str(progress.open_flags)),
        ("prompts ranked by several", str(statistics.overlapping_prompts)),
        ("agreement, ordered pairs", _estimate(statistics.agreement.value)),
        ("agreement with ties", _estimate(statistics.agreement.with_ties)),
        ("Krippendorff's alpha, places (ordinal)", number(statistics.alpha_places)),
        ("Krippendorff's alpha, pairs (nominal)", number(statistics.alpha_pairs)),
        ("earlier of two neighbors preferred", _estimate(statistics.position)),
        ("longer response preferred", _estimate(statistics.length)),
    ):
        head.add_row(name, value)
    parts: list[RenderableType] = [head]
    if statistics.labelers:
        parts += [_labelers(statistics)]
    if statistics.by_pair:
        parts += [_pairs(statistics)]
    return parts


def _labelers(statistics: Statistics) -> Table:
    """One block per labeler: a table of ten columns would not fit on a screen of eighty characters."""
    table = Table(title="Labelers", title_justify="left", show_header=False)
    for one in statistics.labelers:
        table.add_section()
        state = "" if one.status == "active" else f", {one.status}"
        table.add_row(
            _name(f"{one.name}{state}"),
            f"{counted(one.answers, 'answer')}, {one.skipped} skipped, {number(one.median_seconds, 0)} s each (median)",
        )
        for name, value in (
            ("agreement", one.agreement.value), ("gold accuracy", one.gold), ("self-consistency", one.consistency),
            ("earlier preferred", one.position), ("longer preferred", one.length),
        ):  # fmt: skip
            if value is not None:
                table.add_row(f"  {name}", _estimate(value))
    return table


def _pairs(statistics: Statistics) -> Table:
    table = Table(title="Each two labelers", title_justify="left")
    for column in ("labelers", "ordered pairs", "agreement", "with ties", "kappa"):
        table.add_column(column, justify="left" if column == "labelers" else "right")
    for pair, found in statistics.by_pair.items():
        pairs = "0" if found.value is None else str(found.value.pairs)
        table.add_row(
            _name(" · ".join(pair)),
            pairs,
            _estimate(found.value),
            _estimate(found.with_ties),
            number(statistics.kappas[pair]),
        )
    return table


def _name(text: str) -> Text:
    """A name unchanged: nothing in it is interpreted as markup or by the terminal."""
    return Text(visible(text).replace("\n", " "))


def _estimate(value: Estimate | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value.value:.1f} % ({100 * value.low:.0f}–{100 * value.high:.0f})"
