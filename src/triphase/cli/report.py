"""report.html and summary.json of a run, written again."""

import sys

from triphase.cli.arguments import RunPath, require_run
from triphase.reports.contents import gaps_of
from triphase.reports.page import write_report
from triphase.reports.summary import write_summary


def report(run: RunPath, /) -> None:
    """Write report.html and summary.json of a run again."""
    require_run(run)
    write_summary(run)
    path = write_report(run)
    for gap in gaps_of(run):
        print(f"note: {gap}", file=sys.stderr)
    print(path)
