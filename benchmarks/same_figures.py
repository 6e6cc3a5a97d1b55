"""The demo by several processes of one thread each, compared with one process of one thread: are the figures the same?

    python -m benchmarks.same_figures --model smollm2 --processes 2

Two whole runs, one after the other. Their metrics are compared row by row, without what the clock and the memory
decide. They differ by rounding, until rounding changes a sampled token; from there on the runs are two samples of the
same distribution, and only the evaluation, with its standard error, can be compared. Exit code 1 if a phase differs
from its first row on, or the evaluation by more than three standard errors.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from triphase.demo.configuration import demo_settings

PHASES = ("sft", "reward", "ppo")
TOLERANCE = 1e-3
"""Relative difference (absolute, of values below 1) above which two values do not differ by rounding."""
_MOST_ERRORS = 3.0
_OF_THE_MACHINE = ("seconds", "per_second", "gb", "time")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """The rows of a phase.

    Attributes:
        same: number of first rows that differ by rounding at most.
        rows: number of rows.
        largest: the largest difference in the first ``same`` rows.
        metric: the metric that differs first; empty if none does.
    """

    same: int
    rows: int
    largest: float
    metric: str = ""


def compared(first: Sequence[Row], second: Sequence[Row]) -> Compared:
    """Two lists of metrics, row by row, up to the first row that differs by more than rounding."""
    rows, largest = max(len(first), len(second)), 0.0
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        far = {name: distance(one.get(name), other.get(name)) for name in sorted({*one, *other}) if _counts(name)}
        name = max(far, key=lambda each: far[each])
        if far[name] > TOLERANCE:
            return Compared(number, rows, largest, name)
        largest = max(largest, far[name])
    return Compared(min(len(first), len(second)), rows, largest, "" if len(first) == len(second) else "number of rows")


def distance(one: Any, other: Any) -> float:
    """Relative difference of two numbers, absolute below 1; infinite if only one is there, 0 for what is no number."""
    if one is None or other is None:
        return math.inf
    if isinstance(one, str | list | dict) or isinstance(other, str | list | dict):
        return 0.0
    found = abs(float(one) - float(other)) / max(1.0, abs(float(one)))
    return found if math.isfinite(found) else 0.0 if str(one) == str(other) else math.inf


def errors_apart(first: Sequence[Row], second: Sequence[Row]) -> dict[str, float]:
    """Of each policy, by how many standard errors the mean gold scores of two evaluations differ."""
    found = {}
    for policy in sorted({row["policy"] for row in first} & {row["policy"] for row in second}):
        sides = [[row["gold"] for row in rows if row["policy"] == policy] for rows in (first, second)]
        if min(map(len, sides)) < 2 or any(value is None for side in sides for value in side):
            continue
        error = math.hypot(*(statistics.stdev(side) / math.sqrt(len(side)) for side in sides))
        apart = abs(statistics.fmean(sides[0]) - statistics.fmean(sides[1]))
        found[policy] = apart / error if error else (math.inf if apart else 0.0)
    return found


def judged(first: Path, second: Path) -> tuple[list[str], bool]:
    """Two runs in words, and whether their figures are the same."""
    lines, is_same = [], True
    for phase in PHASES:
        found = compared(*(read(run / phase / "metrics.jsonl") for run in (first, second)))
        line = f"{phase}: {found.same} of {found.rows} rows differ by rounding at most (largest {found.largest:.1e})"
        lines.append(line + (f"; then {found.metric} differs" if found.metric else ""))
        is_same = is_same and found.same > 0
    for policy, errors in errors_apart(
        *(read(run / "evaluation" / "samples.jsonl") for run in (first, second))
    ).items():
        lines.append(f"evaluation: the gold scores of {policy} are {errors:.1f} standard errors apart")
        is_same = is_same and errors <= _MOST_ERRORS
    return lines, is_same


def read(path: Path) -> list[Row]:
    """The lines of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _counts(name: str) -> bool:
    return name not in ("time", "wall_time") and not name.endswith(_OF_THE_MACHINE) and "/seconds_" not in name


def run(folder: Path, name: str, processes: int, *, tiny: bool) -> Path:
    """The demo by so many processes."""
    plain = demo_settings(tiny=tiny, output=str(folder)).model_dump(mode="json")
    plain["labeling"].pop("import_", None)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**plain, "name": name, "threads": 1}, sort_keys=False), encoding="utf-8")
    words = ["run", str(path), *(["--processes", str(processes)] if processes > 1 else [])]
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "triphase", *words], env=os.environ | quiet, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return folder / name


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="smollm2")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tiny = options.model == "tiny"
        runs = [
            run(Path(folder), name, count, tiny=tiny) for name, count in (("alone", 1), ("both", options.processes))
        ]
        lines, is_same = judged(*runs)
    print("\n".join(lines))
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
