"""A PPO policy as it was after an iteration: what `--checkpoint` names."""

from pathlib import Path

from triphase.errors import RunError
from triphase.models.policies import Policy, policy_for
from triphase.models.roles import SharedModel
from triphase.settings.phase_names import ppo_phase
from triphase.training.artifacts import taken_of
from triphase.training.checkpoint import load_checkpoint
from triphase.training.checkpoint_places import CHECKPOINTS, whole_steps

_PREFIX = "parameter."


def checkpoints_of(run: Path, variant: str | None = None) -> Path:
    """The directory of the checkpoints of the main PPO run, or of a variant."""
    return run / ppo_phase(variant) / CHECKPOINTS


def require_checkpoint(run: Path, step: int, variant: str | None = None) -> None:
    """Check that PPO, or a variant, has an intact checkpoint of iteration ``step``.

    Raises:
        RunError: there is none; the message lists the existing ones.
    """
    parent = checkpoints_of(run, variant)
    kept = sorted(whole_steps(parent))
    if step not in kept:
        verb, of = (
            ("`triphase ppo`", "PPO")
            if variant is None
            else (f"`triphase ppo --variant {variant}`", f"the variant {variant}")
        )
        known = f"there are {', '.join(map(str, kept))}" if kept else f"there is none; run {verb} first"
        taken = taken_of(run, ppo_phase(variant))
        if taken is not None:  # a branch has the weights of the last iteration alone
            origin = taken.directory(run / ppo_phase(variant)).resolve().parents[1 if variant is None else 2]
            raise RunError(
                f"--checkpoint {step}: {run} shares {of} of {origin}, which has the checkpoints; give that run instead"
            )
        raise RunError(f"--checkpoint {step}: {run} has no such checkpoint of {of}; {known} (checkpoints.keep)")


def load_policy_at(shared: SharedModel, run: Path, step: int, method: str, variant: str | None = None) -> Policy:
    """The policy with the weights that it had after iteration ``step`` of PPO by ``method``.

    Raises:
        RunError: there is no such checkpoint, or only this process of several would open it.
    """
    require_checkpoint(run, step, variant)
    if method == "full" and shared.loaded.sharded:
        raise RunError(
            f"--checkpoint {step}: ppo.method is full, and the base is sharded among processes, which do not open "
            "checkpoints together; give this command one process"
        )
    tensors = load_checkpoint(checkpoints_of(run, variant), step).tensors
    policy = policy_for(shared, method)
    policy.load({name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)})
    return policy
