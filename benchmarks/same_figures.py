"""The phases of the demo by several processes of one thread each, and by one: are the figures the same?

    python -m benchmarks.same_figures [--model smollm2] [--processes 2] [--dtype float32] [--seeds 3] [--runs FOLDER]

A whole run by one process; then each phase again by several, on what the run had before it (`triphase branch
--again`), so that no difference comes from the phases before. Metrics are compared row by row, without what the clock
and the memory decide. They differ by rounding, until rounding changes a sampled token; from there on two PPO runs are
two samples of the same distribution. With `--seeds` PPO runs again by one process with so many other seeds, and the
gold score of the policy that several processes trained is compared with these. Exit code 1 if a phase differs from its
first row on, or if the gold score is not one of these by Student's t at 1 %.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from triphase.demo.configuration import demo_settings
from triphase.models.products import prefers_bfloat16

PHASES = ("sft", "reward", "ppo")
TOLERANCES = {"float32": 1e-3, "bfloat16": 2e-2}
"""Relative difference (absolute, of values below 1) above which two values do not differ by rounding."""
_T = {1: 63.7, 2: 9.92, 3: 5.84, 4: 4.60, 5: 4.03, 6: 3.71, 7: 3.50, 8: 3.36, 9: 3.25}
"""The 99.5 % quantile of Student's t by degrees of freedom."""
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


def compared(first: Sequence[Row], second: Sequence[Row], tolerance: float = TOLERANCES["float32"]) -> Compared:
    """Two lists of metrics, row by row, up to the first row that differs by more than rounding."""
    rows, largest = max(len(first), len(second)), 0.0
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        far = {name: distance(one.get(name), other.get(name)) for name in sorted({*one, *other}) if _counts(name)}
        name = max(far, key=lambda each: far[each])
        if far[name] > tolerance:
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


def is_one_of(value: float, others: Sequence[float]) -> tuple[bool, float]:
    """Whether a value can be one more of the ``others`` (Student's t at 1 %), and their standard deviation."""
    deviation = statistics.stdev(others)
    apart, error = abs(value - statistics.fmean(others)), deviation * math.sqrt(1 + 1 / len(others))
    most = _T[min(len(others) - 1, max(_T))]
    return apart <= most * error, deviation


def judged(first: Path, second: Mapping[str, Path], tolerance: float) -> tuple[list[str], bool]:
    """Each phase of a run and of one by several processes in words, and whether their first rows are the same."""
    lines, is_same = [], True
    for phase, run in second.items():
        found = compared(*(read(each / phase / "metrics.jsonl") for each in (first, run)), tolerance)
        line = f"{phase}: {found.same} of {found.rows} rows differ by rounding at most (largest {found.largest:.1e})"
        lines.append(line + (f"; then {found.metric} differs" if found.metric else ""))
        is_same = is_same and found.same > 0
    return lines, is_same


def gold(run: Path) -> float:
    """The mean gold score of a run's PPO policy in its evaluation."""
    rows = read(run / "evaluation" / "samples.jsonl")
    return statistics.fmean(row["gold"] for row in rows if row["policy"] == "ppo")


def read(path: Path) -> list[Row]:
    """The lines of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _counts(name: str) -> bool:
    return name not in ("time", "wall_time") and not name.endswith(_OF_THE_MACHINE) and "/seconds_" not in name


class Runs:
    """The runs of a comparison, in one folder."""

    def __init__(self, folder: Path, processes: int, *, tiny: bool, dtype: str) -> None:
        self.folder, self.processes = folder, processes
        plain = demo_settings(tiny=tiny, output=str(folder)).model_dump(mode="json")
        plain["labeling"].pop("import_", None)
        plain["model"]["dtype"] = dtype
        for name in ("alone", "sft"):
            written = yaml.safe_dump({**plain, "name": name, "threads": 1}, sort_keys=False)
            (folder / f"{name}.yaml").write_text(written, encoding="utf-8")

    def alone(self) -> Path:
        """The whole run by one process."""
        _command("run", str(self.folder / "alone.yaml"))
        return self.folder / "alone"

    def again(self, phase: str) -> Path:
        """One phase by several processes, after the other phases of `alone`."""
        if phase == "sft":
            self._by_several("sft", str(self.folder / "sft.yaml"))
        else:
            _command("branch", str(self.folder / "alone"), phase, "--again", phase)
            self._by_several(phase, str(self.folder / phase))
        return self.folder / phase

    def seed(self, number: int) -> Path:
        """PPO of `alone` by one process with another seed."""
        name = f"seed-{number}"
        _command("branch", str(self.folder / "alone"), name, "--ppo.seed", str(number), "--run")
        return self.folder / name

    def evaluate(self, run: Path) -> None:
        """Evaluate a run whose PPO has just been repeated."""
        _command("evaluate", str(run))

    def _by_several(self, *words: str) -> None:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes)]
        _done([*launcher, "-m", "triphase", *words])


def _command(*words: str) -> None:
    _done(["-m", "triphase", *words])


def _done(words: Sequence[str]) -> None:
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, *words], env=os.environ | quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="smollm2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dtype", choices=tuple(TOLERANCES))
    parser.add_argument("--seeds", type=int, default=0, help="at least 2, to compare gold scores")
    parser.add_argument("--runs", type=Path, help="an empty folder that keeps the runs")
    options = parser.parse_args()
    dtype = options.dtype or ("bfloat16" if prefers_bfloat16("cpu") else "float32")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.runs or Path(scratch)
        runs = Runs(folder, options.processes, tiny=options.model == "tiny", dtype=dtype)
        alone = runs.alone()
        lines, is_same = judged(alone, {phase: runs.again(phase) for phase in PHASES}, TOLERANCES[dtype])
        print("\n".join(lines), flush=True)
        if options.seeds:
            several = folder / "ppo"
            runs.evaluate(several)
            others = [gold(run) for run in (alone, *(runs.seed(number + 1) for number in range(options.seeds)))]
            is_one, deviation = is_one_of(gold(several), others)
            print(
                f"gold by {options.processes} processes {gold(several):.2f}; by one "
                f"{', '.join(f'{value:.2f}' for value in others)} (deviation {deviation:.2f})"
            )
            is_same = is_same and is_one
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
