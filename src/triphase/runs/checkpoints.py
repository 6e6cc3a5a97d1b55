"""A PPO policy as it was after an iteration: what `--checkpoint` names."""

from pathlib import Path

from triphase.errors import RunError
from triphase.models.critics import CRITIC
from triphase.models.roles import POLICY, SharedModel
from triphase.training.checkpoint import kept_steps, load_checkpoint
from triphase.training.sealed import find_damage

_PREFIX, _HEAD, _CRITIC = "parameter.", "parameter.value_head.", f"parameter.{CRITIC}."


def require_checkpoint(run: Path, step: int) -> None:
    """A whole checkpoint of PPO after iteration ``step``.

    Raises:
        RunError: there is none; the message lists those that there are.
    """
    parent = run / "ppo" / "checkpoints"
    kept = [each for each in kept_steps(parent) if find_damage(parent / f"{each:06d}") is None]
    if step not in kept:
        known = f"there are {', '.join(map(str, kept))}" if kept else "there is none; run `triphase ppo` first"
        raise RunError(f"--checkpoint {step}: {run} has no such checkpoint of PPO; {known} (checkpoints.keep)")


def load_policy_at(shared: SharedModel, run: Path, step: int) -> None:
    """Give the policy the weights that it had after iteration ``step`` of PPO.

    Raises:
        RunError: there is no such checkpoint.
    """
    require_checkpoint(run, step)
    tensors = load_checkpoint(run / "ppo" / "checkpoints", step).tensors
    adapter = {
        name: value for name, value in tensors.items() if name.startswith(_PREFIX) and not name.startswith(_CRITIC)
    }
    heads = {name.removeprefix(_HEAD): adapter.pop(name) for name in list(adapter) if name.startswith(_HEAD)}
    shared.adapters.load(POLICY, {name.removeprefix(_PREFIX): value for name, value in adapter.items()})
    if heads:  # there are none without a critic
        shared.value_head.load_state_dict(heads)
