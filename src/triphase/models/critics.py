"""The hidden states that the value head reads: the policy's, or those of the critic's own adapter.

value-head:  V(s_t) = w·h_policy(s_t) + b         no extra pass; value and policy loss train the same adapter
adapter:     V(s_t) = w·h_critic(s_t) + b         one extra pass of the upper layers; no trained weight is shared
"""

from typing import Protocol

from torch import Tensor, nn

from triphase.batches.sharing import Batch
from triphase.errors import ModelError
from triphase.models.adapters import Adapters

CRITIC = "critic"


class Critic(Protocol):
    """The hidden states from which values are read, and the trained tensors besides the value head."""

    def states(self, batch: Batch, boundary: Tensor | None, policy_states: Tensor) -> Tensor:
        """(N, d) at the positions before each response token; ``policy_states`` are the policy's, of the same shape."""
        ...

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained tensors besides the value head, by their names in checkpoints."""
        ...


class ValueHeadCritic:
    """The policy's own hidden states."""

    def states(self, batch: Batch, boundary: Tensor | None, policy_states: Tensor) -> Tensor:
        """The policy's states, unchanged."""
        return policy_states

    def parameters(self) -> dict[str, nn.Parameter]:
        """None: the policy's adapter belongs to the policy."""
        return {}


class AdapterCritic:
    """Hidden states of the critic's own adapter, on the shared base."""

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
            raise ModelError(
                "a critic with an adapter of its own reads the boundary of the frozen base, which is missing"
            )
        with self.adapters.at_work(CRITIC):
            return self.adapters.backbone.upper(boundary, batch.layout, at=batch.predicting_tokens)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The critic's adapter."""
        return {f"{CRITIC}.{name}": value for name, value in self.adapters.parameters(CRITIC).items()}
