"""Progress bars with rate, elapsed and remaining time and metrics; plain lines without a terminal.

Code takes a ``Progress`` and knows nothing of terminals:

    with progress.track("sft", total=400) as track:
        for batch in batches:
            ...
            track.advance(1, loss=loss)
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from triphase.records.visible import visible


class Track(Protocol):
    """One task in progress."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Counts ``n`` more units as done, and shows the given metrics (others keep their values)."""


class Progress(Protocol):
    """Where progress is shown."""

    def track(
        self, description: str, total: int, *, done: int = 0, unit: str = "steps"
    ) -> AbstractContextManager[Track]:
        """Shows work of ``total`` units while the context lasts; ``done`` of them before this start. May be nested."""

    def note(self, message: str) -> None:
        """Shows one permanent line."""


def progress_for(console: Console | None = None) -> Progress:
    """Bars on a terminal, plain lines elsewhere (a log file, a pipe)."""
    console = console or Console(stderr=True)
    return TerminalProgress(console) if console.is_terminal else PlainProgress(cast(TextIO, console.file))


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def figure(value: float) -> str:
    """A number in four digits or fewer characters: 1234, 12.3, 0.0123, 3e-05."""
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _rate(per_second: float | None, unit: str) -> str:
    if not per_second:
        return ""
    return f"{per_second:.1f} {unit}/s" if per_second >= 1 else f"{1 / per_second:.1f} s/{unit.removesuffix('s')}"


class SilentProgress:
    """Shows nothing; records its calls, for tests."""

    def __init__(self) -> None:
        self.tracks: list[SilentTrack] = []
        self.notes: list[str] = []

    @contextmanager
    def track(self, description: str, total: int, *, done: int = 0, unit: str = "steps") -> Iterator["SilentTrack"]:
        """See Progress."""
        self.tracks.append(SilentTrack(description, total, done, unit))
        yield self.tracks[-1]

    def note(self, message: str) -> None:
        """See Progress."""
        self.notes.append(message)


class SilentTrack:
    """The calls of SilentProgress for one task."""

    def __init__(self, description: str, total: int, done: int, unit: str) -> None:
        self.description, self.total, self.done, self.unit = description, total, done, unit
        self.figures: dict[str, float] = {}

    def advance(self, n: int = 1, **figures: float) -> None:
        """See Track."""
        self.done += n
        self.figures.update(figures)


class PlainProgress:
    """A line at the start, at the end, and every ``every_seconds`` between."""

    def __init__(
        self, stream: TextIO | None = None, *, every_seconds: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._every = every_seconds
        self._clock = clock

    @contextmanager
    def track(self, description: str, total: int, *, done: int = 0, unit: str = "steps") -> Iterator[Track]:
        """See Progress."""
        track = _PlainTrack(self.note, self._every, self._clock, (description, total, done, unit))
        yield track
        track.end()

    def note(self, message: str) -> None:
        """See Progress."""
        print(visible(message), file=self._stream, flush=True)


class _PlainTrack:
    def __init__(
        self, say: Callable[[str], None], every: float, clock: Callable[[], float], work: tuple[str, int, int, str]
    ) -> None:
        self._say, self._every, self._clock = say, every, clock
        self._description, self._total, self._done, self._unit = work
        self._already = self._done
        self._figures: dict[str, float] = {}
        self._start = self._spoken = clock()
        say(f"{self._description}: {self._done}/{self._total} {self._unit}")

    def advance(self, n: int = 1, **figures: float) -> None:
        self._done += n
        self._figures.update(figures)
        now = self._clock()
        if self._done < self._total and now - self._spoken >= self._every:
            self._spoken = now
            self._say(self._line(now))

    def end(self) -> None:
        self._say(self._line(self._clock()))

    def _line(self, now: float) -> str:
        elapsed = now - self._start
        rate = (self._done - self._already) / elapsed if elapsed > 0 else 0.0
        parts = [f"{self._description}: {self._done}/{self._total} {self._unit}"]
        parts += [part for part in (_rate(rate, self._unit), f"{duration(elapsed)} spent") if part]
        if rate and self._done < self._total:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        return " · ".join([*parts, *(f"{name} {figure(value)}" for name, value in self._figures.items())])


class TerminalProgress:
    """Bars by rich, one for each open track."""

    def __init__(self, console: Console) -> None:
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            _LeftColumn(),
            _FiguresColumn(),
            console=console,
        )
        self._open = 0

    @contextmanager
    def track(self, description: str, total: int, *, done: int = 0, unit: str = "steps") -> Iterator[Track]:
        """See Progress. An inner bar vanishes at its end; the outermost stays."""
        if self._open == 0:
            self._bars.start()
        self._open += 1
        task = self._bars.add_task(escape(description), total=total, completed=done, unit=unit, figures={})
        try:
            yield _TerminalTrack(self._bars, task)
        finally:
            self._open -= 1
            if self._open == 0:
                self._bars.stop()
            self._bars.remove_task(task)

    def note(self, message: str) -> None:
        """See Progress."""
        self._bars.console.print(visible(message), markup=False, highlight=False)


class _TerminalTrack:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars, self._task = bars, task
        self._figures: dict[str, float] = {}

    def advance(self, n: int = 1, **figures: float) -> None:
        self._figures.update(figures)
        self._bars.update(self._task, advance=n, figures=dict(self._figures))


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_rate(task.finished_speed or task.speed, task.fields["unit"]), style="cyan")


class _LeftColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.finished or task.time_remaining is None:
            return Text("")
        return Text(f"{duration(task.time_remaining)} left", style="magenta")


class _FiguresColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("  ".join(f"{name} {figure(value)}" for name, value in task.fields["figures"].items()))
