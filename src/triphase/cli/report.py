"""report.html and summary.json of a run, written again, or served while the run goes on."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triphase.cli.arguments import RunPath, require_run
from triphase.reports.contents import gaps_of
from triphase.reports.live import LiveReport
from triphase.reports.page import write_report
from triphase.reports.server import serving
from triphase.reports.summary import write_summary
from triphase.runs.locking import is_worked_on

PORT = 8410


def report(
    run: RunPath,
    /,
    *,
    serve: Annotated[
        bool, Parameter(negative="", help="Serve the report on this machine until Ctrl-C; it renews itself.")
    ] = False,
    port: Annotated[int, Parameter(help="The port of --serve; 0 takes a free one.")] = PORT,
) -> None:
    """Write report.html and summary.json of a run again."""
    require_run(run)
    if serve:
        _serve(run, port)
        return
    write_summary(run)
    path = write_report(run)
    for gap in gaps_of(run):
        print(f"note: {gap}", file=sys.stderr)
    print(path)


def _serve(run: Path, port: int) -> None:
    live = LiveReport(run, is_worked_on=lambda: is_worked_on(run))
    live.page()  # what is damaged is said before anything is served
    with serving(live, port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"The report: {server.address}   (Ctrl-C ends)", flush=True)
        server.serve_forever()
