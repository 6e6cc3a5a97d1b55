"""A PPO policy as it was after an iteration: what `--checkpoint` names."""

from pathlib import Path

from triphase.errors import RunError
from triphase.models.policies import Policy, policy_for
from triphase.models.roles import SharedModel
from triphase.training.checkpoint import load_checkpoint
from triphase.training.checkpoint_places import whole_steps

_PREFIX = "parameter."


def require_checkpoint(run: Path, step: int) -> None:
    """A whole checkpoint of PPO after iteration ``step``.

    Raises:
        RunError: there is none; the message lists those that there are.
    """
    parent = run / "ppo" / "checkpoints"
    kept = sorted(whole_steps(parent))
    if step not in kept:
        known = f"there are {', '.join(map(str, kept))}" if kept else "there is none; run `triphase ppo` first"
        raise RunError(f"--checkpoint {step}: {run} has no such checkpoint of PPO; {known} (checkpoints.keep)")


def load_policy_at(shared: SharedModel, run: Path, step: int, method: str) -> Policy:
    """The policy with the weights that it had after iteration ``step`` of PPO by ``method``.

    Raises:
        RunError: there is no such checkpoint.
    """
    require_checkpoint(run, step)
    tensors = load_checkpoint(run / "ppo" / "checkpoints", step).tensors
    policy = policy_for(shared, method)
    policy.load({name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)})
    return policy
