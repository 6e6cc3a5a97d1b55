"""The report of a run in progress: rendered again when something in the run has changed, with a rate limit."""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from triphase.errors import RunError
from triphase.monitoring.metrics import FILE_NAME, read_metrics
from triphase.reports.answers_over_time import courses_of
from triphase.reports.contents import read_run
from triphase.reports.page import page_of
from triphase.reports.people_wins import people_wins
from triphase.reports.rounds import newest_place
from triphase.settings.phase_names import VARIANTS

_READ = (
    "*.json", "config.yaml", f"*/{FILE_NAME}", f"{VARIANTS}/*/{FILE_NAME}", "evaluation/*.jsonl", "reward/*.json*",
    "ppo/samples.jsonl", f"{VARIANTS}/*/samples.jsonl", "sft/*.json", "people/*.json",
    f"rounds/*/*/{FILE_NAME}", "rounds/*/summary.json", "rounds/*/reward/*.jsonl", "rounds/*/report.html",
)  # fmt: skip
PAUSE, SHARE = 5.0, 10.0
"""Minimum pause between two renderings: in seconds, and as a multiple of the time of a rendering."""


class LiveReport:
    """The newest page of a run, and its version.

    A run that is being trained needs the cores itself: rendering a page that took two seconds is not repeated for
    twenty.
    """

    def __init__(
        self, run: Path, *, is_worked_on: Callable[[], bool | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run = run
        self._is_worked_on = is_worked_on
        self._clock = clock
        self._lock = threading.Lock()
        self._version, self._page, self._problem = "", "", ""
        self._next = float("-inf")

    def page(self) -> str:
        """The page as HTML."""
        with self._lock:
            self._renew()
            return self._page

    def state(self) -> str:
        """JSON for the page: its newest version, and the status of the run."""
        with self._lock:
            self._renew()
            return json.dumps({"version": self._version, "says": self._says()})

    def _renew(self) -> None:
        if self._clock() < self._next:
            return
        version = self._fingerprint()
        if version == self._version:
            return
        begun = self._clock()
        try:
            contents, people = read_run(self._run), people_wins(self._run)
            page = page_of(contents, courses_of(self._run), people, version=version, says=self._says())
        except RunError as error:
            if not self._page:
                raise
            self._problem = str(error)
        else:
            self._version, self._page, self._problem = version, page, ""
        now = self._clock()
        self._next = now + max(PAUSE, SHARE * (now - begun))

    def _fingerprint(self) -> str:
        """Changes whenever a file that the report reads does."""
        found = hashlib.sha256()
        for path in sorted({path for pattern in _READ for path in self._run.glob(pattern)}):
            try:
                status = path.stat()
            except FileNotFoundError:  # removed since it was listed
                continue
            found.update(f"{path.relative_to(self._run)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return found.hexdigest()[:16]

    def _says(self) -> str:
        place = newest_place(self._run)
        steps = {phase: rows[-1]["step"] for phase in ("sft", "reward", "ppo") if (rows := self._rows(place / phase))}
        told = ", ".join(
            f"{name} {steps[phase]}"
            for phase, name in (("sft", "SFT step"), ("reward", "reward-model step"), ("ppo", "PPO iteration"))
            if phase in steps
        )
        if place != self._run:
            told = f"round {place.name}{', ' if told else ''}{told}"
        begun = f" ({told})" if told else ""
        worked_on = self._is_worked_on()
        if worked_on is None:
            stands = "Another machine may be working on this run"
        else:
            stands = "The run is in progress" if worked_on else "No process is working on this run"
        problem = f" Not refreshed: {self._problem}" if self._problem else ""
        return f"{stands}{begun}; this page refreshes by itself.{problem}"

    def _rows(self, phase: Path) -> list[dict[str, float]]:
        try:
            return read_metrics(phase / FILE_NAME)
        except RunError:
            return []
