"""comparison.html: a comparison of policies, on one self-contained page. Every text on it is escaped."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from triphase.monitoring.wording import counted, percent
from triphase.records.files import write_atomically
from triphase.records.visible import visible
from triphase.reports.comparison import Compared, ComparisonFindings, CriterionFindings, against_first
from triphase.reports.comparison_verdicts import verdicts_of
from triphase.reports.interval_wording import interval_text, percent_interval, signed, written_bounds
from triphase.reports.intervals import Interval
from triphase.reports.judgment_figures import interval_chart
from triphase.reports.layout import rendered
from triphase.reports.sections import Section

FILE_NAME = "comparison.html"
_SHOWN = 12
_LABEL = 26
"""Longest name in a chart."""


@dataclass(frozen=True, slots=True)
class Beside:
    """One prompt, and the first response of each side."""

    prompt: str
    answers: Sequence[Compared]


def write_comparison_page(directory: Path, found: ComparisonFindings, responses: Sequence[Compared]) -> Path:
    """Write the page of a comparison."""
    path = directory / FILE_NAME
    write_atomically(path, comparison_page(directory.resolve().name, found, responses))
    return path


def comparison_page(name: str, found: ComparisonFindings, responses: Sequence[Compared]) -> str:
    """The page as HTML."""
    return rendered(
        "comparison.html.j2",
        dict(
            name=name,
            contents=_contents(found),
            found=found,
            verdicts=verdicts_of(found),
            sides=[side.name for side in found.sides],
            charts={each.name: Markup(_chart(number, each, found)) for number, each in enumerate(found.criteria)},  # noqa: S704 - text in it is escaped
            against=against,
            controlled=controlled_text,
            people=people_text,
            plain=interval_text,
            signed=signed,
            rating=rating_text,
            beside=beside(responses, _SHOWN),
        ),
    )


def _contents(found: ComparisonFindings) -> list[Section]:
    criteria = [Section(f"by-{n}", f"By {each.name}", f"By {each.name}") for n, each in enumerate(found.criteria, 1)]
    return [
        Section("sides", "The policies", "Policies"),
        *criteria,
        Section("samples", "Side by side", "Samples"),
        Section("method", "How it was measured", "Method"),
    ]


def beside(responses: Sequence[Compared], count: int) -> list[Beside]:
    """The first prompts in the order of the hashes of their ids, so that none is cherry-picked."""
    by_prompt: dict[str, list[Compared]] = {}
    for each in responses:
        if each.sample == 0:
            by_prompt.setdefault(each.prompt_id, []).append(each)
    chosen = sorted(by_prompt, key=lambda key: hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())[:count]
    return [Beside(by_prompt[key][0].prompt, by_prompt[key]) for key in chosen]


def against(found: CriterionFindings, first: str, side: str) -> str:
    """The win rate of a side over the first one, in words."""
    return "–" if side == first else percent_interval(against_first(found, first, side))


def people_text(found: CriterionFindings) -> str:
    """The labelers and their agreement, in a sentence; empty if no people judged."""
    judgment = found.judgment
    if judgment is None or judgment.labelers is None:
        return ""
    who = judgment.labelers
    if not who.rankings:
        return "no rankings yet"
    given = f"{counted(who.rankings, 'ranking')} by {who.names} {'person' if who.names == 1 else 'people'}, blind"
    agreed = f"two of them agree on {percent_interval(who.agreement)} of the pairs that both ordered"
    alone = "no two of them ordered the same pair, so their agreement is unknown"
    first = "" if judgment.first is None else f"; the response shown earlier was preferred in {percent(judgment.first)}"
    return f"{given}; {agreed if who.agreement else alone}{first}"


def controlled_text(found: CriterionFindings, side: str) -> str:
    """The win rate at equal length, or why it is unknown."""
    each = found.controlled.get(side)
    if each is None:
        return "–"
    if each.rate is None:
        return f"not known: {'longer' if each.longer > 0.5 else 'shorter'} nearly always"
    return percent_interval(each.rate)


def rating_text(rating: Interval | None) -> str:
    """+35 (+20 to +51)."""
    if rating is None:
        return "–"
    low, high = written_bounds(rating)
    bounds = "" if low is None else f" ({low:+.0f} to {high:+.0f})"
    return f"{rating.value:+.0f}{bounds}".replace("-", "−")


def _chart(number: int, found: CriterionFindings, whole: ComparisonFindings) -> str:
    first, *others = [side.name for side in whole.sides]
    shown: dict[str, Interval] = {}
    for place, side in enumerate(others, start=2):
        rate = against_first(found, first, side)
        if rate is not None:
            short = visible(side) if len(visible(side)) <= _LABEL else f"…{visible(side)[1 - _LABEL :]}"
            shown[short if short not in shown else f"{place}: {short}"] = rate
    return interval_chart(f"wins-{number}", "Win rate against the first side", shown) if shown else ""
