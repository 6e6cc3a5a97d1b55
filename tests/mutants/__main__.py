"""`make mutants`: a seeded sample of small faults in the objectives and the phases, and which of them no test notices.

    python -m tests.mutants [--sample 150] [--seed 0] [--workers 2] [--only objectives/advantages] [--least 0.9]
        [--after 75]

Each worker has a copy of `src` with one fault in it, and runs the test files that touch the faulty module, nearest
first, until one fails. Prints each survivor, and fails where fewer than `--least` of the mutants were killed.
"""

import argparse
import compileall
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

from tests.mutants.mutations import Mutant, mutants
from tests.mutants.touching import ROOT, name_of, tests_of

FOLDERS = ("objectives", "phases")
LONGEST_SECONDS = 150
"""A test file that takes longer without a fault is left out, and named: only more mutants can survive by that."""
NOTHING_TO_RUN = 5
"""pytest's exit code for a file whose tests are all marked, as slow ones are."""


@cache
def every_mutant(only: str = "") -> list[tuple[Path, Mutant]]:
    """All mutants of the folders, in a fixed order; the list of names of a package has none."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / "src/triphase" / folder).glob("*.py"))]
    return [
        (path, mutant)
        for path in paths if path.name != "__init__.py" and only in str(path)
        for mutant in mutants(path.read_text(encoding="utf-8"))
    ]  # fmt: skip


class Copy:
    """A copy of `src` of one's own, in which one module at a time is faulty."""

    def __init__(self, folder: Path) -> None:
        self.src = folder / "src"
        shutil.copytree(ROOT / "src", self.src, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(self.src, quiet=2)

    def run(self, tests: Sequence[Path], longest: float) -> int | None:
        """pytest's exit code; None where it did not end in time."""
        environment = os.environ | {
            "PYTHONPATH": f"{self.src}{os.pathsep}{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *map(str, tests)]
        try:
            return subprocess.run(
                command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, timeout=longest,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return None

    def survives(self, path: Path, mutant: Mutant, seconds: Mapping[Path, float]) -> bool:
        """Whether no test notices the fault. Bytecode of the sound module would hide it, so that goes first.

        ``seconds`` is what each test file takes without a fault: a mutant that takes far longer hangs, and is killed.
        """
        tests = [test for test in tests_of(name_of(path)) if test in seconds]
        if not tests:
            return True
        target = self.src / path.relative_to(ROOT / "src")
        Path(cache_from_source(str(target))).unlink(missing_ok=True)
        sound = target.read_text(encoding="utf-8")
        target.write_text(mutant.source, encoding="utf-8")
        try:
            return self.run(tests, 30 + 4 * sum(seconds[test] for test in tests)) == 0
        finally:
            target.write_text(sound, encoding="utf-8")


def survivors(sample: Sequence[tuple[Path, Mutant]], workers: int) -> list[tuple[Path, Mutant]]:
    """The mutants that no test notices, in the order of the sample."""
    with tempfile.TemporaryDirectory(prefix="triphase-mutants-") as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(workers):
            copies.put(Copy(Path(folder) / str(number)))
        tests = sorted({test for path, _ in sample for test in tests_of(name_of(path))})

        def baseline(test: Path) -> float | None:
            copy, start = copies.get(), time.monotonic()
            try:
                code = copy.run([test], LONGEST_SECONDS)
                if code is None:
                    print(f"left out: {test.relative_to(ROOT)} takes over {LONGEST_SECONDS} s", flush=True)
                if code in (None, NOTHING_TO_RUN):
                    return None
                if code != 0:
                    raise SystemExit(f"{test.relative_to(ROOT)} fails without any fault; mend that first")
            finally:
                copies.put(copy)
            return time.monotonic() - start

        with ThreadPoolExecutor(workers) as pool:
            found = zip(tests, pool.map(baseline, tests), strict=True)
            seconds = {test: took for test, took in found if took is not None}
        print(f"{len(seconds)} test files pass without a fault, in {sum(seconds.values()):.0f} s", flush=True)

        def survives(one: tuple[Path, Mutant]) -> bool:
            copy = copies.get()
            start = time.monotonic()
            try:
                alive = copy.survives(*one, seconds)
            finally:
                copies.put(copy)
            print(f"{'SURVIVED' if alive else 'killed  '} {time.monotonic() - start:5.1f} s  {shown(*one)}", flush=True)
            return alive

        with ThreadPoolExecutor(workers) as pool:
            return [one for one, alive in zip(sample, pool.map(survives, sample), strict=True) if alive]


def shown(path: Path, mutant: Mutant) -> str:
    """A mutant as one line."""
    return f"{path.relative_to(ROOT)}:{mutant.line}: {_short(mutant.before)} → {_short(mutant.after)}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else f"{line[:69]}…"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sample, print the survivors, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=150, help="how many mutants (default: 150)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    parser.add_argument(
        "--after", type=int, default=0, help="leave out the first so many of them: another run has them"
    )
    parser.add_argument("--workers", type=int, default=2, help="how many at once (default: 2)")
    parser.add_argument("--only", default="", help="only modules whose path holds this")
    parser.add_argument("--least", type=float, default=0.9, help="share that must be killed (default: 0.9)")
    options = parser.parse_args(arguments)
    possible = every_mutant(options.only)
    if not possible:
        parser.error(f"--only {options.only}: no module of {' and '.join(FOLDERS)} has this in its path")
    draw = random.Random(options.seed)
    sample = draw.sample(possible, min(options.sample, len(possible)))[options.after :]
    if not sample:
        parser.error(f"--after {options.after}: the sample has no more than {min(options.sample, len(possible))}")
    start = time.monotonic()
    alive = survivors(sample, options.workers)
    killed, minutes = len(sample) - len(alive), (time.monotonic() - start) / 60
    print(
        f"\n{killed} of {len(sample)} mutants killed ({killed / len(sample):.0%}), of {len(possible)} that are possible"
    )
    print(f"{minutes:.1f} minutes. Survivors:{'' if alive else ' none'}")
    for one in alive:
        print(f"  {shown(*one)}")
    return int(killed < options.least * len(sample))


if __name__ == "__main__":
    sys.exit(main())
