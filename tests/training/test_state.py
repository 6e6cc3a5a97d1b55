"""The state of a phase in a checkpoint: under the names that earlier versions wrote, and nothing unknown."""

import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from triphase.errors import RunError
from triphase.phases.ppo_state import PPOState
from triphase.phases.reward_state import HeadFit, RewardState
from triphase.phases.score_scale import ScoreScale
from triphase.settings.phases import OptimizerSettings
from triphase.training.checkpoint import load_latest, save_checkpoint
from triphase.training.state import PhaseState, TrainingState
from triphase.training.step import Updater
from triphase.training.unsaved_start import UnsavedStart

SCALE = {"center": 1.5, "scale": None, "count": 8.0, "mean": 1.5, "variance": 0.0}
HEAD = {"penalty": 0.1, "loss": None, "curve": [[0.1, 0.6]], "reward/heldout_loss": 0.5, "reward/heldout_accuracy": 1.0}
# (the values as version 0.1 wrote them, the same typed)
WRITTEN = [
    ({}, PhaseState()),
    ({"finished": "budget", "named": [4]}, PhaseState("budget", [4])),
    ({"halved": [160, 20]}, PhaseState(halved=[160, 20])),
    ({"kl_coefficient": 0.0}, PPOState(kl_coefficient=0.0)),
    (
        {"kl_coefficient": 0.2, "rollbacks": [7], "named": [3], "score_scale": SCALE},
        PPOState(None, [3], [], 0.2, [7], ScoreScale(1.5, None, 8.0, 1.5, 0.0)),
    ),
    ({}, RewardState()),
    ({"head": {"penalty": 1.0}}, RewardState(head=HeadFit(1.0))),
    (
        {"head": HEAD},
        RewardState(
            head=HeadFit(0.1, None, [[0.1, 0.6]], {"reward/heldout_loss": 0.5, "reward/heldout_accuracy": 1.0})
        ),
    ),
]


def state_with(values: PhaseState) -> TrainingState[PhaseState]:
    weight = nn.Parameter(torch.tensor([1.0]))
    return TrainingState(Updater({"w": weight}, {}, OptimizerSettings(learning_rate=0.1), total_steps=9), values)


@pytest.mark.parametrize(("written", "typed"), WRITTEN)
def test_values_are_written_under_the_old_names_and_read_from_them(
    written: dict[str, object], typed: PhaseState, tmp_path: Path
) -> None:
    state_with(typed).save(tmp_path, keep=1)
    found = load_latest(tmp_path)
    assert found is not None and found.values["values"] == written
    again = state_with(type(typed)())
    assert again.resume(tmp_path) and again.values == typed


def test_a_value_of_a_later_version_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    state_with(PPOState()).save(tmp_path, keep=1)
    found = load_latest(tmp_path)
    assert found is not None
    save_checkpoint(
        tmp_path, 3, found.tensors, {**found.values, "values": {"kl_coefficient": 0.1, "temper": 2}}, keep=1
    )
    again = state_with(PPOState(kl_coefficient=0.5))
    with pytest.raises(RunError, match=r"000003: temper: unknown to this version; continue with the version"):
        again.resume(tmp_path)
    assert again.values == PPOState(kl_coefficient=0.5) and again.position == 0


def test_an_unsaved_start_comes_back_whole(tmp_path: Path) -> None:
    state = state_with(PPOState(kl_coefficient=0.3))
    state.untrained = {"copy": torch.tensor([5.0])}
    start = UnsavedStart(state, tmp_path / "ppo")
    assert list((tmp_path / "ppo").iterdir()) == []  # without a name
    with torch.no_grad():
        state.updater.parameters["w"].grad = torch.ones(1)
        state.updater.step()
    state.untrained, state.values, state.position, state.scores = {}, PPOState(kl_coefficient=9.0), 1, {1: 2.0}
    start.restore(state)
    start.close()
    assert (state.values, state.position, state.scores) == (PPOState(kl_coefficient=0.3), 0, {})
    assert {name: value.tolist() for name, value in state.as_checkpoint().tensors.items()} == {
        "parameter.w": [1.0],
        "untrained.copy": [5.0],
    }
    assert state.updater.step_count == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_an_unsaved_start_on_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Path("/dev/full").open("w+b"))
    with pytest.raises(RunError, match="the disk is full"):
        UnsavedStart(state_with(PhaseState()), tmp_path)
