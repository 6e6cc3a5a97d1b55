"""Kill a run at random points, start it again, and compare every byte with the run that was never stopped.

Kinds: SIGKILL after a file operation, in the middle of one (``torn``), with all bytes lost that were not synced
(``power``), or at a random moment; one SIGTERM or SIGINT; a disk that is full from some operation on (``full``), which
must end in a typed error.
"""

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from tests.crash import pipeline, processes
from tests.crash.file_operations import FileOperations, failing, killing
from tests.crash.scenarios import SCENARIOS, Scenario

from triphase.runs.directory import RunDirectory
from triphase.settings.schema import RunSettings

KINDS = ("operation", "torn", "power", "moment", "SIGTERM", "SIGINT", "full")
_LONGEST_SECONDS = 900.0


@dataclass(slots=True)
class Outcome:
    """One run that was stopped (once or more) and continued."""

    number: int
    method: str
    kills: list[str] = field(default_factory=list)
    starts: int = 0
    different: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def identical(self) -> bool:
        return not (self.different or self.leftovers or self.failure)

    def line(self) -> str:
        verdict = "identical" if self.identical else f"DIFFERENT {self.different} {self.leftovers} {self.failure}"
        return f"{self.number:3d}  {self.method:4s}  {self.starts} starts  {', '.join(self.kills):60s}  {verdict}"


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The run that was never stopped: its sums, its seconds, its file operations, and which of them each phase did."""

    digests: dict[str, str]
    seconds: float
    operations: int
    phases: dict[str, tuple[int, int]]

    def draw(self, phase: int, draw: random.Random) -> tuple[str, int]:
        """An operation of a phase, numbered on beyond the last one; the phases come in turn, whatever their lengths."""
        name = list(self.phases)[phase % len(self.phases)]
        first, last = self.phases[name]
        return name, draw.randint(first, last)


class Killer:
    """Runs of one directory; each attempt stands at the same path, which some files name."""

    def __init__(self, directory: Path, scenario: Scenario = SCENARIOS["run"]) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.runs = directory / "runs"
        self._scenario = scenario
        self._work = scenario.work

    def undisturbed(self, method: str) -> Undisturbed:
        """Run to the end with all operations counted."""
        settings, count = self._fresh(method), self.directory / "count"
        operations = FileOperations()

        def work() -> None:
            with _noting_phases(operations) as phases:
                self._work(settings)
            if self._scenario.of_a_finished_run:  # what is done before the first phase of what is made of it
                phases = {"making": (1, min(first for first, _ in phases.values()) - 1), **phases}
            count.write_text(json.dumps([operations.count, phases]))

        begin = time.monotonic()
        code = processes.wait(processes.start(work, self.log, operations))
        if code:
            raise RuntimeError(f"the undisturbed run ended with {code}:\n{self.log.read_text()[-3000:]}")
        seconds, (total, phases) = time.monotonic() - begin, json.loads(count.read_text())
        phases = {name: (first, last) for name, (first, last) in phases.items() if last > first}
        return Undisturbed(self._scenario.digests(self.runs), seconds, total, phases)

    def attempt(self, number: int, method: str, calm: Undisturbed, draw: random.Random, kills: int = 1) -> Outcome:
        """One run, stopped ``kills`` times at random points and continued to its end."""
        settings, outcome = self._fresh(method), Outcome(number, method)
        end = time.monotonic() + _LONGEST_SECONDS
        while not outcome.failure:
            outcome.starts += 1
            stops = len(outcome.kills) < kills
            code = self._stopped(settings, calm, draw, outcome) if stops else self._whole(settings)
            if code == 0:
                if stops:  # it was at its end before the moment came
                    outcome.kills.pop()
                break
            ended = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, processes.STOPPED)
            if code not in ended and not (code == processes.MISTAKEN and outcome.kills[-1].startswith("full")):
                outcome.failure = f"exit code {code}: {self.log.read_text()[-1500:]}"
            if time.monotonic() > end:
                outcome.failure = "did not end"
        if not outcome.failure:
            found = self._scenario.digests(self.runs)
            names = sorted({*found, *calm.digests})
            outcome.different = [name for name in names if found.get(name) != calm.digests.get(name)]
            outcome.leftovers = self._scenario.leftovers(self.runs)
        return outcome

    def _stopped(self, settings: RunSettings, calm: Undisturbed, draw: random.Random, outcome: Outcome) -> int:
        kind = KINDS[outcome.number % len(KINDS)] if not outcome.kills else draw.choice(KINDS)
        # One more after each round of kinds: every kind meets every phase.
        phase, at = calm.draw(outcome.number + outcome.number // len(KINDS) + len(outcome.kills), draw)
        if kind in ("operation", "torn", "power"):
            outcome.kills.append(f"{kind} in {phase} {at}")
            operations = killing(at, torn=kind != "operation", power=kind == "power")
            return processes.wait(processes.start(lambda: self._work(settings), self.log, operations))
        if kind == "full":
            outcome.kills.append(f"full in {phase} {at}")
            return processes.wait(processes.start(lambda: self._work(settings), self.log, failing(at)))
        counter, seconds = processes.Counter(), draw.uniform(0, 0.1)
        outcome.kills.append(f"{kind} in {phase} {at}+{1000 * seconds:.0f} ms")
        child = processes.start(lambda: self._work(settings), self.log, FileOperations(after=counter.take))
        number = signal.SIGKILL if kind == "moment" else signal.Signals[kind]
        return processes.send_after(child, counter, at, seconds, number)

    def _whole(self, settings: RunSettings) -> int:
        return processes.wait(processes.start(lambda: self._work(settings), self.log))

    def _fresh(self, method: str) -> RunSettings:
        shutil.rmtree(self.runs, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        settings = pipeline.settings(self.directory, method)
        if self._scenario.of_a_finished_run:
            finished = self.directory / f"finished-{method}"
            if not finished.is_dir():
                code = processes.wait(processes.start(lambda: processes.pipeline(settings), self.log))
                if code:
                    raise RuntimeError(f"the run to begin with ended with {code}:\n{self.log.read_text()[-3000:]}")
                self.runs.rename(finished)
            shutil.copytree(finished, self.runs)
        return settings


@contextmanager
def _noting_phases(operations: FileOperations) -> Iterator[dict[str, tuple[int, int]]]:
    """The first and last file operation of each phase that runs in the block."""
    found: dict[str, tuple[int, int]] = {}
    timed = RunDirectory.timed

    @contextmanager
    def noting(self: RunDirectory, phase: str) -> Iterator[None]:
        first = operations.count + 1
        with timed(self, phase):
            yield
        found[phase] = (first, operations.count)

    with mock.patch.object(RunDirectory, "timed", noting):
        yield found


def outcomes(
    directory: Path,
    kills: int,
    seed: int,
    methods: tuple[str, ...] = pipeline.METHODS,
    scenario: Scenario = SCENARIOS["run"],
) -> Iterator[Outcome]:
    """``kills`` runs, one kill each (every fifth run: two), methods in turn."""
    processes.load_libraries()
    killer, draw = Killer(directory, scenario), random.Random(seed)
    calm: dict[str, Undisturbed] = {}
    done = number = 0
    while done < kills:
        method = methods[number % len(methods)]
        if method not in calm:
            calm[method] = killer.undisturbed(method)
        wanted = 2 if number % 5 == 4 and done + 2 <= kills else 1
        found = killer.attempt(number, method, calm[method], draw, wanted)
        done += len(found.kills)
        number += 1
        yield found
