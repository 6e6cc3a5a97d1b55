"""Progress shows completed work, rate and remaining time, on a terminal and in a log file."""

import io

import pytest
from rich.console import Console

from triphase.monitoring.progress import (
    PlainProgress,
    SilentProgress,
    TerminalProgress,
    duration,
    figure,
    progress_for,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_every_so_often_with_rate_time_and_figures() -> None:
    clock, stream = Clock(), io.StringIO()
    with PlainProgress(stream, every_seconds=10, clock=clock).track("sft", total=100) as track:
        for step in range(1, 101):
            clock.now = float(step)
            track.advance(2 if step == 1 else 1, loss=3 - step / 100) if step < 100 else None
    lines = stream.getvalue().splitlines()
    assert lines[0] == "sft: 0/100 steps"
    assert lines[1] == "sft: 11/100 steps · 1.1 steps/s · 0:10 spent · 1:21 left · loss 2.9"
    assert lines[-1] == "sft: 100/100 steps · 1.0 steps/s · 1:40 spent · loss 2.01"
    assert len(lines) == 1 + 9 + 1


def test_work_done_before_a_resume_does_not_count_into_the_rate() -> None:
    clock, stream = Clock(), io.StringIO()
    with PlainProgress(stream, every_seconds=1, clock=clock).track("ppo", 100, done=90, unit="iterations") as track:
        clock.now = 10.0
        track.advance(5)
        clock.now = 20.0
        track.advance(5)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "ppo: 90/100 iterations"
    assert lines[1] == "ppo: 95/100 iterations · 2.0 s/iteration · 0:10 spent · 0:10 left"


def test_bars_on_a_terminal_show_rate_time_left_and_figures() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=140, color_system=None)
    progress = progress_for(console)
    assert isinstance(progress, TerminalProgress)
    for name in ("[sft]", "ppo"):
        with progress.track(name, total=3) as outer:
            for _ in range(3):
                with progress.track("writing", total=2, unit="responses") as inner:
                    inner.advance(2)
                outer.advance(loss=0.1234)
            progress.note("note [bold] kept")
    shown = stream.getvalue()
    for text in ("[sft]", "ppo", "3/3", "loss 0.123", "writing", "note [bold] kept", "0:00:00"):
        assert text in shown


def test_no_terminal_means_plain_lines() -> None:
    stream = io.StringIO()
    progress = progress_for(Console(file=stream))
    assert isinstance(progress, PlainProgress)
    progress.note("a note")
    assert stream.getvalue() == "a note\n"


def test_an_interrupted_bar_gives_the_terminal_back() -> None:
    progress = TerminalProgress(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(KeyboardInterrupt), progress.track("sft", 3):
        raise KeyboardInterrupt
    with progress.track("again", 3) as track:
        track.advance()


def test_silent_progress_keeps_what_it_was_told() -> None:
    progress = SilentProgress()
    with progress.track("sft", total=4, done=1) as track:
        track.advance(2, loss=1.5)
        track.advance(loss=1.25, rate=3)
    progress.note("done")
    assert (track.done, track.total, track.figures) == (4, 4, {"loss": 1.25, "rate": 3})
    assert progress.notes == ["done"] and progress.tracks == [track]


def test_durations_and_figures() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 61, 3600, 36_061)] == [
        "0:00",
        "1:00",
        "1:01",
        "1:00:00",
        "10:01:01",
    ]
    assert [figure(value) for value in (3, 0.12345, 12.345, 1e-5)] == ["3", "0.123", "12.3", "1e-05"]


def test_a_note_does_not_act_on_the_terminal() -> None:
    """Names of models, files and labelers stand in notes."""
    stream = io.StringIO()
    for progress in (PlainProgress(stream), TerminalProgress(Console(file=stream, force_terminal=False))):
        progress.note("the model \x1b[31mred\u202e [/x]")
    assert stream.getvalue().count("⟦U+001B⟧[31mred⟦U+202E⟧ [/x]") == 2 and "\x1b" not in stream.getvalue()
