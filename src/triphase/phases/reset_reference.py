"""The reference of the KL penalty if it is not the SFT policy throughout: the policy of every N-th iteration.

At iteration k·N the policy's adapter is copied, and until (k + 1)·N the penalty is relative to the copy. Checkpoints
contain the copy next to the trained tensors, so that a resumed run uses the same bytes. The reference itself stays the
SFT policy: reports, alarms and the KL budget are relative to it.
"""

from torch import Tensor

from triphase.models.policies import Policy, Reference
from triphase.models.roles import SharedModel
from triphase.phases.ppo_state import PPOState
from triphase.training.state import TrainingState

RESET = "reset-reference"
_PREFIX = f"{RESET}."


class ResetReference:
    """The copy of the policy that is the reference of the KL penalty."""

    def __init__(self, shared: SharedModel, every: int | None) -> None:
        self._shared, self._every = shared, every
        self._loaded: dict[str, Tensor] = {}
        shared.adapters.remove(RESET)

    def at(self, iteration: int, policy: Policy, state: TrainingState[PPOState]) -> Reference | None:
        """The reference of the penalty in an iteration (from 0); None is the usual reference.

        At an iteration at which it is reset, the policy is copied into ``state``.
        """
        if self._every is None:
            return None
        if iteration and iteration % self._every == 0:
            copied = {f"{_PREFIX}{name}": value.detach().clone() for name, value in policy.parameters().items()}
            state.untrained = {**state.untrained, **copied}
        kept = {name: value for name, value in state.untrained.items() if name.startswith(_PREFIX)}
        if any(self._loaded.get(name) is not value for name, value in kept.items()):  # it may be an earlier copy again
            self._load(kept)
        return Reference(self._shared, whole=False, adapter=RESET) if kept else None

    def close(self) -> None:
        """Release the copy."""
        self._loaded = {}
        self._shared.adapters.remove(RESET)

    def _load(self, kept: dict[str, Tensor]) -> None:
        self._shared.adapters.load(RESET, {name.removeprefix(_PREFIX): value for name, value in kept.items()})
        self._loaded = kept
