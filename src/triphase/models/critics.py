"""Whose hidden states the value head reads: the policy's, or those of an adapter that the critic has for itself.

value-head:  V(s_t) = w·h_policy(s_t) + b         no pass more; value and policy loss pull at the same adapter
adapter:     V(s_t) = w·h_critic(s_t) + b         one upper pass more; no trained weight is shared
"""

from typing import Protocol

from torch import Tensor, nn

from triphase.batches.sharing import Batch
from triphase.errors import ModelError
from triphase.models.adapters import Adapters

CRITIC = "critic"


class Critic(Protocol):
    """The states from which values are read, and what of them is trained beside the value head."""

    def states(self, batch: Batch, boundary: Tensor | None, policy_states: Tensor) -> Tensor:
        """(N, d) of the positions before each response token; ``policy_states`` are the policy's, of the same shape."""
        ...

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained beside the value head, by the names of checkpoints."""
        ...


class ValueHeadCritic:
    """The policy's own states."""

    def states(self, batch: Batch, boundary: Tensor | None, policy_states: Tensor) -> Tensor:
        """The policy's."""
        return policy_states

    def parameters(self) -> dict[str, nn.Parameter]:
        """None: the policy's adapter is the policy's."""
        return {}


class AdapterCritic:
    """States of an adapter of its own, on the shared base."""

    def __init__(self, adapters: Adapters, start: str) -> None:
        """It starts as a copy of the adapter ``start``."""
        self.adapters = adapters
        adapters.load(CRITIC, adapters.state(start))

    def states(self, batch: Batch, boundary: Tensor | None, policy_states: Tensor) -> Tensor:
        """A pass of the upper layers from the boundary, which all roles share.

        Raises:
            ModelError: there is no boundary.
        """
        if boundary is None:
            raise ModelError("a critic with an adapter of its own reads the boundary of the frozen base; give it")
        with self.adapters.at_work(CRITIC):
            return self.adapters.backbone.upper(boundary, batch.layout, at=batch.predicting_tokens)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Its adapter."""
        return {f"{CRITIC}.{name}": value for name, value in self.adapters.parameters(CRITIC).items()}
