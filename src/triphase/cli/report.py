"""report.html and summary.json of a run, written again, or served while the run is in progress."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triphase.cli.arguments import require_run
from triphase.errors import SettingsError
from triphase.records.visible import visible
from triphase.reports.contents import gaps_of
from triphase.reports.live import LiveReport
from triphase.reports.page import write_report
from triphase.reports.runs_page import FILE_NAME, MOST_RUNS, write_runs_page
from triphase.reports.server import serving
from triphase.reports.summary import write_summary
from triphase.runs.locking import is_worked_on

PORT = 8410


def report(
    *runs: Annotated[Path, Parameter(help="Run directories; several are compared on one page.")],
    serve: Annotated[
        bool, Parameter(negative="", help="Serve the report on this machine until Ctrl-C; the page updates itself.")
    ] = False,
    port: Annotated[
        int | None, Parameter(help=f"The port of --serve, {PORT} by default; 0 picks a free one.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None, Parameter(help="File of the page of several runs; runs.html next to the first run by default.")
    ] = None,
) -> None:
    """Write the report of a run, or a page of several runs.

    For one run it writes report.html and summary.json, for several one page that compares them.
    """
    for each in runs:
        require_run(each)
    _check(runs, serve=serve, port=port, to=to)
    if len(runs) > 1:
        print(visible(str(write_runs_page(to or runs[0].resolve().parent / FILE_NAME, runs))))
        return
    run = runs[0]
    if serve:
        _serve(run, PORT if port is None else port)
        return
    write_summary(run)
    path = write_report(run)
    for gap in gaps_of(run):
        print(visible(f"note: {gap}"), file=sys.stderr)
    print(visible(str(path)))


def _check(runs: Sequence[Path], *, serve: bool, port: int | None, to: Path | None) -> None:
    """Refuse incompatible arguments.

    Raises:
        SettingsError: they are.
    """
    if not runs:
        raise SettingsError("report needs a run: triphase report RUN")
    if serve and len(runs) > 1:
        raise SettingsError("--serve serves one run; leave the others out, or --serve")
    if port is not None and not serve:
        raise SettingsError(f"--port {port}: needs --serve; add it, or leave --port out")
    if len(runs) > MOST_RUNS:
        raise SettingsError(f"{len(runs)} runs are too many to tell apart on one page; the limit is {MOST_RUNS}")
    if len({each.resolve() for each in runs}) < len(runs):
        raise SettingsError("a run is named twice; name each once")
    if to is not None and len(runs) == 1:
        raise SettingsError("--to needs several runs; the report of one run is in its directory")
    if to is not None and (to.is_dir() or not to.parent.is_dir()):
        raise SettingsError(f"--to {to}: must be a file in a directory that exists, such as runs.html")


def _serve(run: Path, port: int) -> None:
    live = LiveReport(run, is_worked_on=lambda: is_worked_on(run))
    live.page()  # damage is reported before anything is served
    with serving(live, port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"The report: {server.address}   (Ctrl-C ends)", flush=True)
        server.serve_forever()
