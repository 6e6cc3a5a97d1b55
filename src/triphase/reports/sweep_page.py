"""sweep.html: the runs of a sweep on one self-contained page. Every text on it is escaped."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from triphase.errors import RunError
from triphase.monitoring.metrics import FILE_NAME as METRICS
from triphase.monitoring.metrics import read_metrics
from triphase.monitoring.wording import number, percent
from triphase.records.files import write_atomically
from triphase.reports import figures
from triphase.reports.contents import read_run
from triphase.reports.interval_wording import interval_text, percent_interval
from triphase.reports.layout import rendered
from triphase.reports.page import PANELS
from triphase.reports.run_list import FIGURES, RunLine, line_of
from triphase.reports.sections import Section
from triphase.reports.seeds import find_over_seeds

FILE_NAME = "sweep.html"
_SEEDS = ("seed", "ppo.seed")
_MOST_CURVES = 6
_DRAWN = ("ppo/proxy_score", "ppo/gold_score", "ppo/reference_kl", "ppo/mean_length")

Changes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    values: list[str]
    stands: str
    is_reported: bool
    figures: list[str]


def write_sweep_page(directory: Path, points: Mapping[str, Changes]) -> Path:
    """Write the page of a sweep; ``points`` are its runs: name → the settings in which it differs."""
    path = directory / FILE_NAME
    write_atomically(path, sweep_page(directory, points))
    return path


def sweep_page(directory: Path, points: Mapping[str, Changes]) -> str:
    """The page as HTML."""
    made = {name: changes for name, changes in points.items() if (directory / name / "config.yaml").is_file()}
    lines = {name: line_of(directory / name) for name in made}
    keys = list(dict.fromkeys(key for changes in points.values() for key in changes))
    shown = [name for name in FIGURES if any(line.figures[name] is not None for line in lines.values())]
    rows = [
        _Row(
            name,
            [changes.get(key, "–") for key in keys],
            lines[name].stands if name in lines else "not started",
            (directory / name / "report.html").is_file(),
            [FIGURES[each].text(lines[name].figures[each]) if name in lines else "–" for each in shown],
        )
        for name, changes in points.items()
    ]
    means, panels = _means(directory, made, lines, shown), _panels(directory, list(made))
    contents = (
        Section("seeds", "Over seeds", "Seeds") if means else None,
        Section("runs", "Runs", "Runs"),
        Section("iterations", "PPO", "PPO") if panels else None,
    )
    return rendered(
        "sweep.html.j2",
        dict(
            name=directory.resolve().name,
            contents=[each for each in contents if each is not None],
            keys=keys,
            titles=[FIGURES[name].title for name in shown],
            rows=rows,
            means=means,
            without_seeds=[key for key in keys if key not in _SEEDS],
            panels=panels,
            curves=list(zip(made, figures.run_colors(len(made)), strict=True)) if len(made) <= _MOST_CURVES else [],
        ),
    )


def _means(
    directory: Path, points: Mapping[str, Changes], lines: Mapping[str, RunLine], shown: Sequence[str]
) -> list[_Row]:
    """Over seeds, if runs differ in nothing else: mean with its interval, or with the standard deviation."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, changes in points.items():
        key = tuple((each, text) for each, text in changes.items() if each not in _SEEDS)
        groups.setdefault(key, []).append(name)
    if all(len(names) < 2 for names in groups.values()):
        return []
    rows = []
    for key, names in groups.items():
        intervals = _intervals(directory, names)
        found = [intervals.get(each) or _spread(each, names, lines) for each in shown]
        rows.append(_Row("", [text for _, text in key], str(len(names)), False, found))
    return rows


def _intervals(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """Values with intervals that include seeds and prompts, by the names of `FIGURES`; empty for fewer than two
    runs."""
    try:
        runs = [read_run(directory / name, with_seeds=False) for name in names]
    except RunError:
        return {}  # its line in the table below says what is damaged
    found = find_over_seeds(runs, "seed", [run.seed for run in runs])
    if found is None or found.ppo is None or len(found.seeds) < len(names):
        return {}
    texts = {"wins": found.ppo.gold_win_rate and percent_interval(found.ppo.gold_win_rate)}
    texts |= {
        name: interval and interval_text(interval)
        for name, interval in (
            ("gold", found.ppo.gold),
            ("gain", found.ppo.proxy_gain),
            ("kl", found.ppo.reference_kl),
            ("tokens", found.ppo.tokens),
        )
    }
    return {name: text for name, text in texts.items() if text}


def _spread(figure: str, names: Sequence[str], lines: Mapping[str, RunLine]) -> str:
    values = [value for name in names if (value := lines[name].figures[figure]) is not None]
    if not values:
        return "–"
    deviation = statistics.stdev(values) if len(values) > 1 else None
    text = FIGURES[figure].text if FIGURES[figure].text is percent else number  # integer tokens hide a deviation
    return f"{text(statistics.fmean(values))} ± {text(deviation)}"


def _panels(directory: Path, names: Sequence[str]) -> list[Markup]:
    """The curves of PPO, if there are few enough to distinguish."""
    if len(names) > _MOST_CURVES:
        return []
    rows = {name: read_metrics(directory / name / "ppo" / METRICS) for name in names}
    drawn = [
        figures.iteration_panel(metric.replace("/", "-"), rows, metric, title, share=share)
        for metric, title, share in PANELS
        if metric in _DRAWN
    ]
    return [Markup(svg) for svg in drawn if svg]  # noqa: S704 - text in it is escaped
