"""Shared by the benchmarks: each side runs in its own process, its metrics are medians, and a table shows them."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = dict[str, Any]
# Processor seconds tell more than seconds where other work runs on the machine.
FIGURES = {"seconds": "seconds", "cpu_seconds": "processor seconds", "peak_gb": "peak GB"}
Found = dict[tuple[str, ...], list[Row]]


def in_turn(cases: Mapping[tuple[str, ...], Sequence[str]], *, rounds: int) -> Found:
    """Run every case's command once a round, so that a slow minute of the machine falls on all sides."""
    found: Found = {case: [] for case in cases}
    for _ in range(rounds):
        for case, command in cases.items():
            found[case].append(run_side(command))
    return found


def run_side(command: Sequence[str]) -> Row:
    """The JSON line that a command prints last; its failure ends this process with its last words."""
    # Telling a model hub or a data set hub would only take time.
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | offline)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    row: Row = json.loads(lines[-1])
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def print_side(what: str, figures: Callable[[], Row], rate: tuple[str, str]) -> None:
    """Time ``figures``, the work of one side, and print its JSON line: what it returns, seconds, and peak memory.

    ``rate`` is the name of one more figure, and of the count that it is per second.
    """
    start, start_cpu = time.perf_counter(), time.process_time()
    row = figures()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    name, count = rate
    timed = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        name: round(row[count] / seconds, 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    print(json.dumps({"what": what, **row, **timed}))


def median(rows: Sequence[Row], key: str) -> float:
    """The median of one figure over the rounds."""
    return statistics.median(float(row[key]) for row in rows)


def best(found: Found, key: str, *, of: Callable[[tuple[str, ...]], bool]) -> list[Row]:
    """The rows of the case with the highest median, among those chosen: a side may pick its better dtype."""
    return max((rows for case, rows in found.items() if of(case)), key=lambda rows: median(rows, key))


def print_table(found: Found, names: Sequence[str], columns: Mapping[str, str]) -> None:
    """One line a case: its parts under ``names``, then the median and the range of each figure of ``columns``."""
    head = [*names, *columns.values()]
    lines = [
        [*case, *(f"{median(rows, key):g} ({_range(rows, key)})" for key in columns)] for case, rows in found.items()
    ]
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]
    for line in [head, *lines]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _range(rows: Sequence[Row], key: str) -> str:
    return f"{min(row[key] for row in rows):g}–{max(row[key] for row in rows):g}"


def peer_options(about: str | None) -> argparse.ArgumentParser:
    """The options of a benchmark beside a peer: ``--peer``, ``--data``, ``--rounds``."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="the peer's Python")
    parser.add_argument("--data", required=True, type=Path, help="the records that both sides train on")
    parser.add_argument("--rounds", type=int, default=3)
    return parser
