"""``study``: remedies against reward hacking, over seeds, with best of n and the curves against √KL."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from triphase.cli import deferred
from triphase.cli.arguments import Config, Overrides, parse_overrides, settings_of
from triphase.cli.steps import do_steps
from triphase.cli.sweep import carry, print_failures, print_gaps, require_parallel
from triphase.datacheck.agenda import todo
from triphase.errors import SettingsError
from triphase.monitoring.progress import progress_for
from triphase.monitoring.wording import number
from triphase.records.visible import visible
from triphase.reports.interval_wording import percent_interval, signed
from triphase.reports.study import StudyFindings, find_study
from triphase.reports.study_page import headline, peak_text, write_study
from triphase.runs.locking import locked
from triphase.runs.seeds import require_count
from triphase.runs.studying import StudyPoint, Variant, study_points, variants_of
from triphase.runs.sweeping import require_directory
from triphase.settings.loading import load_settings
from triphase.settings.phase_names import REWARD, SFT
from triphase.settings.places import expanded
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import has_left
from triphase.training.stopping import Stopped

_BEFORE_PPO = {"sft": "sft", "sampling": "sampling", "labelling": "labeling", "reward": "reward"}
_MOST_SAMPLES = 1 << 12


def study(
    config: Config,
    /,
    *overrides: Overrides,
    variants: Annotated[
        str | None,
        Parameter(
            help="Names separated by commas: none, kl, ensemble, length-residual, rounds, all, and the `variants` of "
            "the settings."
        ),
    ] = None,
    seeds: Annotated[int, Parameter(help="Number of seeds for each variant.")] = 3,
    best_of: Annotated[
        int, Parameter(help="Largest n for best-of-n sampling, which trains nothing; 1 leaves it out.")
    ] = 64,
    parallel: Annotated[
        int, Parameter(help="Number of runs at a time, each in its own process with its share of the cores.")
    ] = 1,
) -> int:
    """Study overoptimization: gold score of variants against √KL."""
    require_count(seeds)
    require_parallel(parallel)
    if not 1 <= best_of <= _MOST_SAMPLES:
        raise SettingsError(f"--best-of {best_of}: must lie between 1 and {_MOST_SAMPLES}")
    settings = settings_of(config, overrides)
    chosen = variants_of(settings, None if variants is None else [each.strip() for each in variants.split(",")])
    run = expanded(settings.output) / settings.name
    directory = run.absolute().parent / f"{run.name}-study"
    require_directory(directory, run)
    for variant in chosen:  # errors in one are reported before the first phase
        load_settings(config, {**parse_overrides(overrides), **variant.changes})
    _begin(settings, run)
    points = study_points(run, directory, chosen, seeds)
    with locked(directory, "another process is working on this study: wait for it, or stop it"):
        failures = carry([each.point for each in points], parallel)
        found, page = _report(directory, points, chosen, best_of)
    _print(found, page)
    print_gaps([each.point for each in points])
    print_failures(failures)
    return 1 if failures else 0


def _begin(settings: RunSettings, run: Path) -> None:
    """Run the phases before PPO, which the variants share, unless they are finished."""
    steps = [step for step in todo(settings) if step in _BEFORE_PPO]
    if any(phase in steps and not has_left(run, phase) for phase in (SFT, REWARD)) or not run.is_dir():
        do_steps(settings, *(_BEFORE_PPO[step] for step in steps), examined=tuple(todo(settings)), is_part=True)


def _report(
    directory: Path, points: Sequence[StudyPoint], variants: Sequence[Variant], best_of: int
) -> tuple[StudyFindings, Path]:
    finished = [each for each in points if each.point.is_finished]
    first = [each.point.path for each in finished if each.variant == variants[0].name]
    try:
        notes = deferred.sample_best_of(first, best_of, progress_for()) if best_of > 1 else []
    except Stopped:
        raise KeyboardInterrupt from None
    missing = [f"{each.point.path.name} is not finished, and is left out" for each in points if each not in finished]
    about = {variant.name: variant.about for variant in variants}
    found = find_study(directory.name, [each.run for each in finished], about, [*notes, *missing])
    return found, write_study(directory, found)


def _print(found: StudyFindings, page: Path) -> None:
    console = Console(highlight=False)
    wide = console if console.is_terminal else Console(highlight=False, width=400)
    table = Table(box=None, pad_edge=False, header_style="bold")
    first = found.variants[0].name if found.variants else ""
    for title in ("variant", "gold win rate", "gold gain", f"over {first}", "proxy gain", "KL, nats", "peak, √KL"):
        table.add_column(Text(visible(title)), overflow="fold")
    for each in found.variants:
        kl = number(each.reference_kl.value if each.reference_kl else None, 1)
        cells = [each.name, percent_interval(each.win_rate), signed(each.gold_gain), signed(each.over_first)]
        table.add_row(*(Text(visible(cell)) for cell in [*cells, signed(each.proxy_gain), kl, peak_text(each.fit)]))
    best = found.best_of_n
    golds = (best.gold or [None] * len(best.sizes)) if best else ()
    for n, gold, proxy in zip(best.sizes, golds, best.proxy, strict=True) if best else ():
        if best and n in (best.sizes[-1], best.sizes[len(best.sizes) // 2]):
            table.add_row(f"best of {n}", "–", signed(gold), "–", signed(proxy), "–", peak_text(best.fit))
    wide.print(table)
    for sentence in headline(found):
        wide.print(Text(visible(sentence)))
    for note in found.notes:
        print(visible(f"note: {note}"), file=sys.stderr)
    Console(highlight=False, soft_wrap=True).print(f"[bold]page[/bold]  {escape(visible(str(page)))}")
