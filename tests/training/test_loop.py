"""The training loop: no step is skipped or repeated, whatever interrupts it."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Lines
from torch import nn

from triphase.errors import RunError
from triphase.settings.phases import OptimizerSettings
from triphase.training.checkpoint_places import CHECKPOINTS, kept_steps
from triphase.training.distributed.types import Strategy
from triphase.training.loop import Judged, LoopOptions, Phase, run_loop
from triphase.training.state import PhaseState, TrainingState
from triphase.training.step import Updater
from triphase.training.stopping import Stopped, StopRequest

TOTAL = 12


@dataclass
class Sum(PhaseState):
    """A running value."""

    sum: float = 0.0


class Toy(Phase):
    """Learns w by a gradient that depends on the step; keeps a running figure in ``values``."""

    def __init__(self) -> None:
        self.w = nn.Parameter(torch.tensor([1.0, 2.0]))
        head = nn.Parameter(torch.tensor([0.5]))
        settings = OptimizerSettings(learning_rate=0.1, head_learning_rate=0.3, schedule="linear")
        self.state = TrainingState(Updater({"w": self.w}, {"h": head}, settings, total_steps=TOTAL), Sum())
        self.total_steps = TOTAL
        self.on_start: Callable[[], None] = lambda: None
        self.goodness: dict[int, float] = {}
        self.done: list[int] = []
        self.fail_at: int | None = None

    def advance(self, position: int) -> dict[str, float]:
        if position == self.fail_at:
            raise RuntimeError("power cut")
        self.done.append(position)
        for parameter in self.state.updater.parameters.values():
            parameter.grad = torch.sin(parameter.detach() + position)
        self.state.values.sum += float(self.w.detach().sum())
        return {"norm": self.state.updater.step().gradient_norm, "sum": self.state.values.sum}

    def start(self) -> None:
        self.on_start()

    def judge(self, position: int, metrics: Mapping[str, float]) -> Judged:
        return (position, self.goodness[position]) if position in self.goodness else None

    def run(self, directory: Path, lines: Lines, **options: object) -> "Toy":
        chosen = {"keep": 2, "every": 5, **options}
        run_loop(self, LoopOptions(directory, lines, **chosen))
        return self


def same(first: Toy, second: Toy) -> bool:
    tensors = [toy.state.updater.tensors() for toy in (first, second)]
    return (
        tensors[0].keys() == tensors[1].keys()
        and all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
        and first.state.values == second.state.values
        and first.state.position == second.state.position
        and first.state.updater.step_count == second.state.updater.step_count
    )


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Toy, Lines]:
    lines = Lines()
    return Toy().run(tmp_path / "whole", lines), lines


def test_steps_are_done_once_in_order_and_kept_as_asked(whole: tuple[Toy, Lines], tmp_path: Path) -> None:
    toy, lines = whole
    assert toy.done == list(range(TOTAL))
    assert list(lines.rows) == list(range(1, TOTAL + 1))
    assert kept_steps(tmp_path / "whole" / CHECKPOINTS) == [10, 12]


@pytest.mark.parametrize("fail_at", range(TOTAL))
def test_after_a_crash_anywhere_the_end_is_the_same_to_the_bit(
    whole: tuple[Toy, Lines], tmp_path: Path, fail_at: int
) -> None:
    lines, first = Lines(), Toy()
    first.fail_at = fail_at
    with pytest.raises(RuntimeError, match="power cut"):
        first.run(tmp_path / "cut", lines)
    second = Toy().run(tmp_path / "cut", lines)
    assert second.done == list(range(fail_at - fail_at % 5, TOTAL))
    assert same(second, whole[0])
    assert lines.rows == whole[1].rows


@pytest.mark.parametrize("stop_at", range(1, TOTAL + 1))
def test_a_stop_ends_after_its_step_and_the_next_call_goes_on(
    whole: tuple[Toy, Lines], tmp_path: Path, stop_at: int
) -> None:
    stop, lines, first = StopRequest(), Lines(), Toy()

    def ask(metrics: Mapping[str, float]) -> None:
        stop.asked = len(first.done) == stop_at

    with pytest.raises(Stopped):
        first.run(tmp_path / "cut", lines, stop=stop, on_step=ask)
    assert first.done == list(range(stop_at))
    second = Toy().run(tmp_path / "cut", lines)
    assert second.done == list(range(stop_at, TOTAL))
    assert same(second, whole[0]) and lines.rows == whole[1].rows


def test_a_finished_phase_does_nothing_again(whole: tuple[Toy, Lines], tmp_path: Path) -> None:
    again = Toy().run(tmp_path / "whole", whole[1])
    assert again.done == [] and same(again, whole[0])


def test_a_phase_that_says_it_is_finished_ends_there_and_stays_ended(tmp_path: Path) -> None:
    class Ends(Toy):
        def advance(self, position: int) -> dict[str, float]:
            metrics = super().advance(position)
            if position == 6:
                self.state.values.finished = "budget"
            return metrics

    lines = Lines()
    assert Ends().run(tmp_path, lines).done == list(range(7))
    assert kept_steps(tmp_path / CHECKPOINTS)[-1] == 7
    assert Ends().run(tmp_path, lines).done == []
    assert len(lines.rows) == 7


def test_metrics_are_written_before_the_checkpoint_that_contains_them(tmp_path: Path) -> None:
    class Cut(Lines):
        def write(self, step: int, values: Mapping[str, float]) -> None:
            super().write(step, values)
            assert step not in kept_steps(tmp_path / CHECKPOINTS)
            if step == 5:
                raise RunError("the disk is full")

    lines = Cut()
    with pytest.raises(RunError):
        Toy().run(tmp_path, lines)
    assert kept_steps(tmp_path / CHECKPOINTS) == []
    second = Toy()
    again = Lines()
    again.rows = lines.rows
    second.run(tmp_path, again)
    assert second.done == list(range(TOTAL)) and list(again.rows) == list(range(1, TOTAL + 1))


def test_the_best_are_kept_beside_the_newest(tmp_path: Path) -> None:
    toy = Toy()
    toy.goodness = {1: 0.0, 2: 5.0, 3: 1.0, 4: 4.0, 5: float("nan"), 6: 2.0}
    toy.run(tmp_path, Lines(), keep=1, keep_best=2)
    assert kept_steps(tmp_path / CHECKPOINTS) == [2, 4, 12]
    assert toy.state.scores == {1: 0.0, 2: 5.0, 3: 1.0, 4: 4.0, 6: 2.0}
    assert Toy().run(tmp_path, Lines()).state.scores == toy.state.scores


def test_the_beginning_is_done_once(tmp_path: Path) -> None:
    begun = []
    lines, toy, again = Lines(), Toy(), Toy()
    toy.fail_at = 7
    toy.on_start, again.on_start = lambda: begun.append(1), lambda: begun.append(2)
    with pytest.raises(RuntimeError):
        toy.run(tmp_path, lines, save_start=True)
    assert kept_steps(tmp_path / CHECKPOINTS) == [0, 5]
    again.run(tmp_path, lines, save_start=True)
    assert begun == [1]


class Waits(Strategy):
    """The second of two ranks, which records when it waits for rank 0."""

    rank, world = 1, 2

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def from_lead(self, make: Callable[[], Any]) -> Any:
        self._events.append("rank 0")
        return None


class Opened(Exception):
    """A phase was opened."""


def test_ranks_open_a_phase_once_rank_0_does(tmp_path: Path) -> None:
    """It may have started servers, for longer than the time-out of what opening a phase compares."""
    events, toy = [], Toy()
    toy.state.updater.strategy = Waits(events)

    def opened(directory: Path) -> None:
        events.append("open")
        raise Opened

    toy.open = opened  # type: ignore[method-assign]
    with pytest.raises(Opened):
        toy.run(tmp_path, Lines())
    assert events == ["rank 0", "open"]


# Signals


def test_the_first_signal_asks_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
