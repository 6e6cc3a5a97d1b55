"""Which roles of PPO are offloaded to the host's memory in which stage, if `model.offload` is set.

| stage    | what is offloaded, besides adapters that the stage does not read              |
|----------|-------------------------------------------------------------------------------|
| sampling | with full weights the layers of the frozen base                               |
| scoring  | nothing: every role is read                                                   |
| updates  | the trunk, or with full weights (and no critic on the base) all of its layers |

Embedding and head of the base stay, and so does a trunk that later epochs read: with demonstrations in the updates, or
with rows that move between processes.
"""

from triphase.models.critics import CRITIC
from triphase.models.offloading import Offloaded, places_of
from triphase.models.policies import Policy
from triphase.models.roles import POLICY, SharedModel
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Generator
from triphase.settings.ppo import PPOSettings


class RoleOffloading:
    """The adapters and layers that are offloaded while one run of PPO does not read them."""

    def __init__(self, shared: SharedModel, policy: Policy, settings: PPOSettings, *, ranks: int = 1) -> None:
        self._shared = shared
        self._is_on = shared.loaded.offload
        self._samples_elsewhere = policy.model is not shared
        layers = list(shared.backbone.layers)
        if settings.sft_mix > 0 or ranks > 1:
            layers = []
        elif settings.method == "lora" or settings.critic == "adapter":
            layers = layers[: shared.backbone.trunk_layers]
        self._layers = Offloaded(list(places_of(layers)))
        self._adapters: dict[str, Offloaded] = {}

    def before_sampling(self) -> None:
        """The policy is about to sample."""
        if self._is_on:
            self._offload_adapters()
            if self._samples_elsewhere:
                self._layers.offload()
            else:
                self._layers.reload()

    def before_scoring(self) -> None:
        """Every role is about to be read."""
        self._layers.reload()
        for adapter in self._adapters.values():
            adapter.reload()

    def before_updates(self, generator: Generator) -> None:
        """Only what is trained is read from here on. A captured step reads the base at fixed addresses: it is
        released."""
        if self._is_on:
            if isinstance(generator, LocalGenerator):
                generator.release()
            self._offload_adapters()
            self._layers.offload()

    def _offload_adapters(self) -> None:
        adapters = self._shared.adapters
        for name in adapters.names:
            if name not in (POLICY, CRITIC):
                self._adapters.setdefault(name, Offloaded(adapters.places(name))).offload()
