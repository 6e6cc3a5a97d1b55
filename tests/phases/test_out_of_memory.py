"""Out of memory makes the passes smaller and changes nothing else; at the smallest size it ends the phase."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.steps import ppo_phase, reward_phase, shared_on
from tests.small import Lines, samples

from triphase.models.backbone import Backbone
from triphase.phases.sft import SupervisedPhase
from triphase.settings.phases import SupervisedSettings
from triphase.training.loop import LoopOptions, run_loop

ROOM = 40
"""Tokens of a pass with gradients for which there is memory."""


class Scarce:
    """Not enough memory for a pass with gradients of more than ``room`` tokens, from the ``first`` pass on."""

    def __init__(self, first: int = 0, room: int = ROOM) -> None:
        self.passes = self.failed = 0
        self._first, self._room = first, room
        self._upper = Backbone.upper

    def upper(self, backbone: Backbone, boundary: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            self.passes += 1
            if self.passes > self._first and boundary.shape[:2].numel() > self._room:
                self.failed += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self._upper(backbone, boundary, *args, **kwargs)


def supervised(most: int) -> SupervisedPhase:
    made = samples(10, response=(4, 9))
    settings = SupervisedSettings(
        batch_size=5, epochs=1, optimizer={"learning_rate": 1e-2, "schedule": "constant"}, microbatch_tokens=most
    )
    return SupervisedPhase(shared_on("cpu"), made, [*range(10)] * 2, [], settings)


def carried(phase: Any, directory: Path, monkeypatch: pytest.MonkeyPatch, scarce: Scarce | None) -> Lines:
    lines = Lines()
    with monkeypatch.context() as patched:
        if scarce is not None:
            patched.setattr(Backbone, "upper", lambda *args, **kwargs: scarce.upper(*args, **kwargs))
        run_loop(phase, LoopOptions(directory, lines, keep=1))
    return lines


PHASES = {
    "sft": lambda: supervised(160),
    "reward": lambda: reward_phase(shared_on("cpu")),
    "ppo": lambda: ppo_phase(shared_on("cpu"), iterations=3, microbatch_tokens=160),
    "ppo-running": lambda: ppo_phase(
        shared_on("cpu"), iterations=3, microbatch_tokens=160, score_normalization="running"
    ),
}


@pytest.mark.parametrize(
    ("name", "first"), [("sft", 0), ("reward", 0), ("ppo", 0), ("ppo", 2), ("ppo-running", 4), ("ppo-running", 6)]
)
def test_smaller_passes_give_the_same_results(
    name: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wide, phase, scarce = PHASES[name](), PHASES[name](), Scarce(first)
    enough = carried(wide, tmp_path / "enough", monkeypatch, None)
    with caplog.at_level(logging.WARNING):
        found = carried(phase, tmp_path / "scarce", monkeypatch, scarce)
    assert scarce.failed > 0
    assert f"not enough memory: passes of at most {phase.settings.microbatch_tokens} tokens" in caplog.text
    assert found.plain().keys() == enough.plain().keys()
    for step, row in enough.plain().items():
        assert found.plain()[step] == pytest.approx(row, rel=1e-3, abs=1e-4), step
    if name.startswith("ppo"):  # each rollout counts once, however often its step began
        assert phase.state.values.score_scale.count == wide.state.values.score_scale.count > 0


@pytest.mark.parametrize("name", ["sft", "ppo"])
@pytest.mark.parametrize("changed", [False, True], ids=["same setting", "another setting"])
def test_a_resumed_run_does_not_fail_again(
    name: str, changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless the setting was changed: then that is what the user wants."""
    phase, again, lines = PHASES[name](), PHASES[name](), Lines()
    advance, room, scarce = phase.advance, Scarce(room=25), Scarce(room=10_000 if changed else 25)

    def interrupted(step: int) -> Any:
        if step == 2:
            raise KeyboardInterrupt
        return advance(step)

    monkeypatch.setattr(phase, "advance", interrupted)
    monkeypatch.setattr(Backbone, "upper", lambda *args, **kwargs: room.upper(*args, **kwargs))
    with pytest.raises(KeyboardInterrupt):
        run_loop(phase, LoopOptions(tmp_path, lines, keep=1))
    assert room.failed > 1
    if changed:
        again.settings = again.settings.model_copy(update={"microbatch_tokens": 200})
    monkeypatch.setattr(Backbone, "upper", lambda *args, **kwargs: scarce.upper(*args, **kwargs))
    with caplog.at_level(logging.INFO):
        run_loop(again, LoopOptions(tmp_path, lines, keep=1))
    assert scarce.passes > 0 and scarce.failed == 0
    assert again.settings.microbatch_tokens == (200 if changed else phase.settings.microbatch_tokens)
    assert ("as before the interruption" in caplog.text) is not changed
    assert len(lines.rows) == again.total_steps


def test_a_skipped_step_before_the_lack_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are skipped write nothing, so the step begins anew from its own count."""
    ends = []
    for lacks in (False, True):
        phase, lines = supervised(160), Lines()
        advance, left = phase.advance, iter([lacks])

        def skips_first(step: int, advance: Any = advance, phase: Any = phase, left: Any = left) -> Any:
            if step == 0:
                phase.state.updater.skip_step(["the loss"])
                if next(left, False):
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return advance(step)

        monkeypatch.setattr(phase, "advance", skips_first)
        run_loop(phase, LoopOptions(tmp_path / str(lacks), lines, keep=1))
        ends.append((phase.state.updater.step_count, phase.state.updater.skipped_in_a_row))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(("most", "left"), [(9, None), (10, 5), (100_000, 5 * 9 // 2)])
def test_passes_are_never_smaller_than_the_longest_row_and_always_than_a_step(most: int, left: int | None) -> None:
    phase = supervised(most)
    phase.lengths = [4, 9, 6]
    assert phase.halve_microbatches() == left


def test_passes_of_one_row_cannot_be_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        carried(supervised(160), tmp_path, monkeypatch, Scarce(room=3))
