"""The tests that may notice a fault: those that execute its line, the fastest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.mutants.mutations import Mutant
from tests.mutants.touching import files, imported, name_of, tests_of


@dataclass(frozen=True, slots=True)
class Recorded:
    """A test as it runs without a fault: its id, its seconds, and the lines that it executes by module."""

    name: str
    seconds: float
    starts_processes: bool
    lines: Mapping[str, set[int]]


def chosen(mutant: Mutant, path: Path, recorded: Mapping[Path, Sequence[Recorded]]) -> list[Recorded]:
    """The tests for a fault in a module.

    What a module executes when it is imported counts for all tests of the files that touch it, and so do the lines of a
    process that a test starts. Where a file or its helpers keep results for all tests, one test executes the line and
    others look at what it gave: all of them are chosen.
    """
    module = name_of(path)
    sure: list[Recorded] = []
    perhaps: list[Recorded] = []
    for test in tests_of(module):
        tests = recorded.get(test, ())
        executing = [each for each in tests if not each.lines.get(module, set()).isdisjoint(mutant.lines)]
        rest = tests if mutant.when_imported or (executing and _keeps(name_of(test))) else [
            each for each in tests if each.starts_processes
        ]  # fmt: skip
        if mutant.when_imported:
            executing = [each for each in tests if each.lines.get(module)]
        sure += executing
        perhaps += [each for each in rest if each not in executing]
    return [*sorted(sure, key=_seconds), *sorted(perhaps, key=_seconds)]


def _seconds(test: Recorded) -> float:
    return test.seconds


@cache
def _keeps(name: str) -> bool:
    """Whether a test file, or a module of tests that it imports, keeps what a function gave."""
    reached = [name, *(each for each in imported(name) if each.startswith("tests."))]
    return any(
        "@cache" in (text := files()[each].read_text(encoding="utf-8")) or "lru_cache" in text for each in reached
    )
