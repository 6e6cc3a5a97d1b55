"""What PPO trains: an adapter on the shared base, or every weight of a copy of it.

    lora:  W_policy = W + s·B·A          W frozen and shared by all roles, A and B trained
    full:  W_policy = W' + s·B_ref·A_ref  W' a copy of W, trained; the SFT adapter on it is not trained

The copy starts as W, with the SFT adapter active on it, so that policy and reference run the same operations and their
first divergence is 0 to the bit. The adapter is merged when the policy is written. The base stays unchanged for the
reference, the reward model and a critic with its own adapter: each keeps the weights that it was trained on.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from triphase.batches.sharing import Batch
from triphase.errors import ModelError
from triphase.models.roles import POLICY, REFERENCE, PolicyOutput, SharedModel
from triphase.models.sharded_loading import Shard, copy_of_parts


@dataclass(frozen=True, slots=True)
class Reference:
    """The policy at the start: the frozen base with the reference's adapter (or a later policy's, in a copy).

    Attributes:
        whole: whether all layers run, on the policy's own rows, or the upper ones on the cached trunk states. It
            matches the policy: the same operations on the same shapes give the same bits.
    """

    shared: SharedModel
    whole: bool
    adapter: str = REFERENCE

    def logprobs(self, batch: Batch, boundary: Tensor, *, temperature: float) -> Tensor:
        """(B, R) log π_ref of the responses."""
        found = self.shared.policy_output(
            batch, boundary, adapter=self.adapter, temperature=temperature, whole=self.whole
        )
        return found.logprobs


class Policy(Protocol):
    """The trained policy, as the phases use it.

    Attributes:
        model, adapter: what the generator samples from.
        reference: the policy at the start.
    """

    model: SharedModel
    adapter: str
    reference: Reference

    def output(
        self,
        batch: Batch,
        boundary: Tensor,
        *,
        temperature: float,
        with_entropy: bool = False,
        with_values: bool = False,
    ) -> PolicyOutput:
        """See `SharedModel.policy_output`; ``boundary`` is the frozen base's."""
        ...

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained tensors, by their names in checkpoints."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of a checkpoint, by the names of `parameters`; others in ``state`` are ignored.

        Raises:
            ModelError: they belong to another model, or to adapters with other settings.
        """
        ...

    def train(self, learns: bool) -> None:
        """Enable or disable its gradients."""
        ...


class AdapterPolicy:
    """The policy's adapter on the shared base."""

    adapter = POLICY

    def __init__(self, shared: SharedModel) -> None:
        self.model = shared
        self.reference = Reference(shared, whole=False)

    def output(
        self,
        batch: Batch,
        boundary: Tensor,
        *,
        temperature: float,
        with_entropy: bool = False,
        with_values: bool = False,
    ) -> PolicyOutput:
        """Only the upper layers run."""
        return self.model.policy_output(
            batch,
            boundary,
            adapter=POLICY,
            temperature=temperature,
            with_entropy=with_entropy,
            with_values=with_values,
        )

    def parameters(self) -> dict[str, nn.Parameter]:
        """The tensors of the adapter."""
        return self.model.adapters.parameters(POLICY)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """The tensors of the adapter."""
        _load(self.parameters(), state)

    def train(self, learns: bool) -> None:
        """Enable or disable the adapter's gradients."""
        for parameter in self.parameters().values():
            parameter.requires_grad_(learns)


class FullPolicy:
    """A copy of the base, every weight of which is trained, with the frozen adapter of the reference active on it."""

    adapter = REFERENCE

    def __init__(self, shared: SharedModel, shard: Shard | None = None) -> None:
        """``shard`` divides the layers of the copy among processes, if those of the base are."""
        self._shared = shared
        self.reference = Reference(shared, whole=True)
        base = shared.backbone.model
        with shared.adapters.removed():
            model = copy.deepcopy(base) if shard is None else copy_of_parts(base, shared.device, shard)
        self.model = SharedModel(
            replace(shared.loaded, model=model),
            shared.adapter_settings,
            seed=0,  # nothing that it would draw is used
            base_name=shared.base_name,
            base_note=shared.base_note,
        )
        self.model.template = shared.template
        self.model.adapters.load(REFERENCE, shared.adapters.state(REFERENCE))

    def output(
        self,
        batch: Batch,
        boundary: Tensor,
        *,
        temperature: float,
        with_entropy: bool = False,
        with_values: bool = False,
    ) -> PolicyOutput:
        """Every layer of the copy runs; the frozen base's boundary is for a critic that uses it."""
        if with_values:
            self.model.critic, self.model.value_head = self._shared.critic, self._shared.value_head
        return self.model.policy_output(
            batch,
            boundary,
            adapter=REFERENCE,
            temperature=temperature,
            with_entropy=with_entropy,
            with_values=with_values,
            whole=True,
        )

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every weight of the copy, without the adapter on it."""
        named = self.model.backbone.model.named_parameters()
        return {name: parameter for name, parameter in named if ".lora_" not in name}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Every weight of the copy."""
        _load(self.parameters(), state)

    def train(self, learns: bool) -> None:
        """Enable or disable the gradients of all weights."""
        for parameter in self.parameters().values():
            parameter.requires_grad_(learns)


def policy_for(shared: SharedModel, method: str, shard: Shard | None = None) -> Policy:
    """The policy at the start of PPO by ``method`` (`lora` or `full`): the reference. ``shard`` as in `FullPolicy`."""
    if method == "full":
        return FullPolicy(shared, shard)
    shared.adapters.load(POLICY, shared.adapters.state(REFERENCE))
    return AdapterPolicy(shared)


@torch.no_grad()
def _load(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        if name not in state or state[name].shape != parameter.shape:
            raise ModelError(
                f"the checkpoint has no {name} of shape {tuple(parameter.shape)}: it belongs to "
                f"another model, ppo.method or other adapters; use the settings that it was created with"
            )
        parameter.copy_(state[name])
