"""`make mutants`: a seeded sample of small faults in the objectives and the phases, and which of them no test notices.

    python -m tests.mutants [--sample 150] [--seed 0] [--workers 2] [--only objectives/advantages] [--least 0.9]
        [--after 75]

First the test files that touch the faulty modules run once, with a record of the lines that each test executes. Each
worker has a copy of `src` with one fault in it, and runs the tests that execute the faulty line, the fastest first,
until one fails. Prints each survivor, and fails where fewer than `--least` of the mutants were killed.
"""

import argparse
import compileall
import json
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
from contextlib import ExitStack
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import Self

from tests.mutants.choosing import Recorded, chosen
from tests.mutants.mutations import Mutant, mutants
from tests.mutants.touching import ROOT, name_of, tests_of
from tests.mutants.warm import LIBRARIES

FOLDERS = ("objectives", "phases")
LONGEST_SECONDS = 150
"""A test file that takes longer without a fault is left out, and named: only more mutants can survive by that."""
FIRST = 25
"""So many tests run first: most faults are noticed by them, and the files of the others need not be imported."""
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
    """A private copy of `src` in which one module at a time is faulty, and a warm process that runs its tests."""

    def __init__(self, folder: Path, libraries: Sequence[str] = LIBRARIES) -> None:
        self.src = folder / "src"
        self.record = folder / "record.json"
        shutil.copytree(ROOT / "src", self.src)
        compileall.compile_dir(self.src, quiet=2)
        environment = os.environ | {
            "PYTHONPATH": f"{self.src}{os.pathsep}{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "MPLBACKEND": "Agg",
        }
        command = [sys.executable, "-m", "tests.mutants.warm", *libraries]
        self._warm = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._warm.communicate()

    def run(
        self, files: Sequence[str], names: Sequence[str], longest: float, recorded: Sequence[Path] = ()
    ) -> int | None:
        """pytest's exit code for these tests (without names: for all of the files); None where it did not end.

        Which lines of the folders ``recorded`` each executes is then in `record`.
        """
        asked = {"files": [*files], "names": [*names], "seconds": longest}
        if recorded:
            self.record.unlink(missing_ok=True)
            asked |= {"record": str(self.record), "folders": [str(folder) for folder in recorded]}
        assert self._warm.stdin is not None and self._warm.stdout is not None
        print(json.dumps(asked), file=self._warm.stdin, flush=True)
        code: int | None = json.loads(self._warm.stdout.readline())
        return code

    def recorded(self, test: Path) -> list[Recorded] | None:
        """The lines that each test of a file executes; None if it has no tests to run here, or takes too long.

        Raises:
            SystemExit: a test fails without a fault.
        """
        shown = str(test.relative_to(ROOT))
        code = self.run([shown], [], LONGEST_SECONDS, [self.src / "triphase" / each for each in FOLDERS])
        if code is None:
            print(f"left out: {shown} takes over {LONGEST_SECONDS} s", flush=True)
        if code in (None, NOTHING_TO_RUN):
            return None
        if code != 0:
            raise SystemExit(f"{shown} fails without any fault; mend that first")
        found = json.loads(self.record.read_text(encoding="utf-8"))
        return [
            Recorded(
                name,
                each["seconds"],
                each["starts_processes"],
                {self._module(file): {*lines} for file, lines in each["lines"].items()},
            )
            for name, each in found.items()
        ]

    def _module(self, file: str) -> str:
        return name_of(ROOT / "src" / Path(file).relative_to(self.src))

    def survives(self, path: Path, mutant: Mutant, recorded: Mapping[Path, Sequence[Recorded]]) -> bool:
        """Whether no test notices the fault. Bytecode of the sound module would hide it, so that goes first.

        A mutant with which tests take far longer than without hangs, and is killed.
        """
        tests = chosen(mutant, path, recorded)
        target = self.src / path.relative_to(ROOT / "src")
        Path(cache_from_source(str(target))).unlink(missing_ok=True)
        sound = target.read_text(encoding="utf-8")
        target.write_text(mutant.source, encoding="utf-8")
        try:
            for part in (tests[:FIRST], tests[FIRST:]):
                files = list(dict.fromkeys(test.name.split("::")[0] for test in part))
                longest = 30 + 4 * sum(test.seconds for test in part)
                if part and self.run(files, [test.name for test in part], longest) != 0:
                    return False
            return True
        finally:
            target.write_text(sound, encoding="utf-8")


def survivors(
    sample: Sequence[tuple[Path, Mutant]], workers: int, libraries: Sequence[str] = LIBRARIES
) -> list[tuple[Path, Mutant]]:
    """The mutants that no test notices, in the order of the sample."""
    with tempfile.TemporaryDirectory(prefix="triphase-mutants-") as folder, ExitStack() as opened:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(workers):
            copies.put(opened.enter_context(Copy(Path(folder) / str(number), libraries)))
        tests = sorted({test for path, _ in sample for test in tests_of(name_of(path))})

        def baseline(test: Path) -> list[Recorded] | None:
            copy = copies.get()
            try:
                return copy.recorded(test)
            finally:
                copies.put(copy)

        def survives(one: tuple[Path, Mutant]) -> bool:
            copy, start = copies.get(), time.monotonic()
            try:
                alive = copy.survives(*one, recorded)
            finally:
                copies.put(copy)
            print(f"{'SURVIVED' if alive else 'killed  '} {time.monotonic() - start:5.1f} s  {shown(*one)}", flush=True)
            return alive

        start = time.monotonic()
        with ThreadPoolExecutor(workers) as pool:
            found = zip(tests, pool.map(baseline, tests), strict=True)
            recorded = {test: each for test, each in found if each is not None}
        print(f"{len(recorded)} test files pass without a fault, in {time.monotonic() - start:.0f} s", flush=True)
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
