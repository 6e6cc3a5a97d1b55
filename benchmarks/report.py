"""The report of a run of 200 iterations: time to write it, its size, and the time Chromium takes to open it.

    python -m benchmarks.report [--rounds 5] [--run RUN]

Needs Chromium and the extra `browser` (make test-browser installs both). Medians of the rounds; load is the time to the
end of the page's load event, paint that to the first thing that is seen.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.browser import launched, opening
from tests.reports.long_run import write_long_run

from triphase.reports.page import write_report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", type=Path, help="a run of your own; a made-up one of 200 iterations by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, launched() as browser:
        run = options.run or write_long_run(Path(directory) / "long")
        begun = time.process_time()
        report = write_report(run)
        seconds = time.process_time() - begun
        megabytes = report.stat().st_size / 1e6
        found = [opening(browser, report) for _ in range(options.rounds)]
    print(f"written in {seconds:.1f} s of processor time, {megabytes:.2f} MB, {found[0].elements} elements")
    print(f"paint {median(each.painted for each in found):.0f} ms, load {median(each.loaded for each in found):.0f} ms")


if __name__ == "__main__":
    main()
