"""``compare``: policies on the same prompts, with win rates, ratings, lengths and samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from triphase.cli import deferred
from triphase.errors import SettingsError
from triphase.monitoring.wording import percent
from triphase.records.visible import visible
from triphase.reports.comparison import ComparisonFindings, CriterionFindings
from triphase.reports.comparison_page import (
    FILE_NAME,
    against,
    controlled_text,
    people_text,
    rating_text,
)
from triphase.reports.interval_wording import interval_text, percent_interval
from triphase.runs.comparison_request import ComparisonRequest

_HOTTEST, _MOST = 100.0, 1 << 16


def compare(
    *sides: Annotated[
        str,
        Parameter(
            help="Two or more: a run (its newest policy), RUN/sft, RUN/ppo, RUN/arms/NAME, RUN/ppo/best, "
            "RUN/ppo/checkpoints/STEP, a model's directory, or a hub id. All others are compared with the first."
        ),
    ],
    prompts: Annotated[
        str | None, Parameter(help="A file of prompts; by default the held-out prompts of the first run.")
    ] = None,
    by: Annotated[
        list[str] | None,
        Parameter(
            help="gold, reward (of the runs), people (on the labeling page), or a YAML file with a scorer's settings; "
            "kind: judge compares pairs. Can be given several times; by default what the runs have.",
        ),
    ] = None,
    to: Annotated[Path | None, Parameter(help="The directory of the comparison; next to the first run by default.")] = (
        None
    ),
    samples: Annotated[int | None, Parameter(help="Responses per prompt.")] = None,
    max_prompts: Annotated[int | None, Parameter(help="Largest number of prompts.")] = None,
    max_tokens: Annotated[int | None, Parameter(help="Longest response, in tokens.")] = None,
    temperature: Annotated[float | None, Parameter(help="Sampling temperature of all sides.")] = None,
    seed: Annotated[int, Parameter(help="Seed of responses and intervals.")] = 0,
) -> None:
    """Compare policies on held-out prompts."""
    if len(sides) < 2:
        raise SettingsError("compare needs two policies or more: triphase compare RUN/sft RUN/ppo")
    limits = (("samples", samples, _MOST), ("max-prompts", max_prompts, 10**9), ("max-tokens", max_tokens, _MOST))
    for name, value, most in limits:
        if value is not None and not 1 <= value <= most:
            raise SettingsError(f"--{name} {value}: must lie between 1 and {most}")
    if temperature is not None and not 0 < temperature <= _HOTTEST:
        raise SettingsError(f"--temperature {temperature}: must be above 0, and at most {_HOTTEST:g}")
    wanted = ComparisonRequest(
        sides=sides,
        prompts=prompts,
        by=by,
        to=to,
        samples=samples,
        max_prompts=max_prompts,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
    )
    directory, found = deferred.compare_named(wanted)
    _print(found, directory)


def _print(found: ComparisonFindings, directory: Path) -> None:
    console = Console(highlight=False)
    wide = console if console.is_terminal else Console(highlight=False, width=400)
    table = _table(["policy", "KL, nats", "tokens", "finished"])
    for side in found.sides:
        cells = [side.name, interval_text(side.reference_kl), interval_text(side.tokens, 1)]
        cells.append(percent_interval(side.finished))
        table.add_row(*(Text(visible(cell)) for cell in cells))
    wide.print(table)
    first = found.sides[0].name
    for criterion in found.criteria:
        wide.print()
        wide.print(_criterion_table(criterion, [side.name for side in found.sides]))
        if criterion.without and not (criterion.judgment and criterion.judgment.labelers):
            what = "pairs have no verdict" if criterion.judgment else "responses have no score"
            wide.print(f"{criterion.without} {what} and are left out")
        judgment = criterion.judgment
        if judgment is not None and judgment.labelers is not None:
            _print_people(wide, criterion, directory)
        elif judgment is not None and judgment.first is not None and judgment.consistent is not None:
            wide.print(
                f"the first response was preferred in {percent(judgment.first)} of the verdicts; "
                f"{percent(judgment.consistent)} of the pairs had the same verdict in both orders"
            )
    wide.print()
    asked = found.asked
    how = (
        f"{asked['prompts']} prompts ({asked['prompts_from']}), {asked['samples']} responses of each policy, "
        f"temperature {asked['temperature']:g}, at most {asked['max_response_tokens']} tokens; 95 % intervals over "
        f"prompts; the others are compared with {first}"
    )
    wide.print(Text(visible(how)))
    for note in found.notes:
        wide.print(Text(visible(f"note: {note}")))
    Console(highlight=False, soft_wrap=True).print(f"[bold]page[/bold]  {escape(visible(str(directory / FILE_NAME)))}")


def _print_people(wide: Console, criterion: CriterionFindings, directory: Path) -> None:
    wide.print(Text(visible(people_text(criterion))))
    if criterion.without:
        serve = f"triphase label serve {directory}"
        waiting = f"{criterion.without} pair{'' if criterion.without == 1 else 's'} without a ranking"
        wide.print(Text(visible(f"{waiting}: `{serve}`, and then the same command again counts the answers")))


def _criterion_table(found: CriterionFindings, sides: Sequence[str]) -> Table:
    titles = [f"by {found.name}", "mean", "wins", "wins at equal length", "rating, Elo"]
    table = _table(titles if found.means else [titles[0], *titles[2:]])
    for side in sides:
        cells = [side, *([interval_text(found.means.get(side))] if found.means else [])]
        cells += [against(found, sides[0], side), controlled_text(found, side), rating_text(found.ratings.get(side))]
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def _table(titles: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(Text(visible(title)), overflow="fold")
    return table
