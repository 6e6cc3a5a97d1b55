"""A decoder divided into a trunk that no adapter touches and the layers above it.

During a phase nothing below the adapted layers changes, so the hidden states at the boundary are computed once per
sample and reused by every role (policy, reference, critic, reward model) and every epoch. Both parts are the model's
own module object with a slice of its layers, so any decoder of transformers works that takes ``inputs_embeds`` and runs
its layers in order; `Backbone` compares the divided with the undivided model on construction, bit for bit.
"""

import copy
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

from triphase.batches.padding import Layout
from triphase.errors import ModelError
from triphase.models import attention
from triphase.models.compilation import Compilation
from triphase.models.language_head import logit_map_of
from triphase.models.layers import FirstLayer, LastLayer, TokenPositions, gather_positions, is_common
from triphase.models.quantization import kept_codes
from triphase.models.recomputation import Recomputation, Recomputed
from triphase.models.sharding_checks import (
    chooses_rightly,
    packs_rightly,
    require_exact_division,
    require_no_own_inputs,
)
from triphase.models.simulated_card import is_simulated
from triphase.objectives.masking import at_least_float32


class Backbone:
    """The hidden states of a causal language model, in two steps.

    Attributes:
        model: the causal language model of transformers; adapters are injected into it.
        layer_count: total number of decoder layers.
        trunk_layers: layers below the boundary, which are never trained.
        packs: whether several responses may share a row after their prompt.
        chooses: whether the last layer computes only the states that are read; else all are computed, then selected.
        sharded: whether the weights of a layer are present only while the layer itself runs.
        logit_map: what the language-model head applies to its products: a bias, a scale, a soft cap.
        recomputation: the context that a layer needs when it runs again in the backward pass.
        packed_decoding: whether `FastDecoder` multiplies with packed copies of the layers' weights.
        compilation: of the layers above the boundary; None if they are not compiled.
    """

    def __init__(
        self,
        model: Any,
        *,
        adapted_layers: int | None,
        recompute_activations: bool = False,
        verified: bool = True,
        sharded: bool = False,
    ) -> None:
        """Divide ``model`` below its top ``adapted_layers`` layers (None, or more than there are: below all of them).

        Args:
            recompute_activations: keep only each layer's input for the backward pass, and run the layer again there.
            verified: False skips the comparison of the parts with the whole, for tensors without data.
            sharded: the weights of a layer are present only while the layer itself runs.

        Raises:
            ModelError: there are fewer layers, or the architecture does not allow the division.
        """
        self.model = model
        self._decoder = model.get_decoder()
        self._list_name = _name_of_layers(self._decoder)
        self.sharded = sharded
        layers = getattr(self._decoder, self._list_name)
        if is_common(layers[-1]):
            attention.use_for(model)
        self.layer_count = len(layers)
        adapted = self.layer_count if adapted_layers is None else adapted_layers
        self.trunk_layers = max(0, self.layer_count - adapted)
        self._embed = model.get_input_embeddings()
        self.logit_map = logit_map_of(model)
        self.recomputation = Recomputation()
        self.compilation: Compilation | None = None
        self.packed_decoding = False
        self._first: FirstLayer | None = None
        self._last = LastLayer(layers[-1])
        self.recomputation.restore_hooks.append(self._last.as_now)
        self._trunk = self._slice(0, self.trunk_layers)
        self._upper = self._slice(self.trunk_layers, self.layer_count)
        self._whole = self._slice(0, self.layer_count)
        for part in (self._upper, self._whole):
            own = nn.ModuleList([*getattr(part, self._list_name)[:-1], self._last])
            part._modules[self._list_name] = self.recomputation.wrap(own) if recompute_activations else own
        # The selecting layer calls the parts of the last layer, and not the layer.
        self.chooses = is_common(layers[-1]) and not sharded
        require_no_own_inputs(self)
        if verified:
            require_exact_division(self)
            self.chooses = self.chooses and chooses_rightly(self)
        self.packs = self.attends_fully and (not verified or packs_rightly(self))

    @property
    def layers_name(self) -> str:
        """Name of the list of layers inside the decoder (``layers`` in most)."""
        return self._list_name

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, the lowest first."""
        layers: nn.ModuleList = getattr(self._decoder, self._list_name)
        return layers

    @property
    def attends_fully(self) -> bool:
        """Whether every layer attends to all previous tokens, without a sliding window."""
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        return kinds == {"full_attention"} or (not kinds and getattr(config, "sliding_window", None) is None)

    def embed(self, ids: Tensor) -> Tensor:
        """(…) ids → (…, d)."""
        embedded: Tensor = self._embed(ids)
        return embedded

    def rotary(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of rotary positions, each (B, T, D)."""
        found: tuple[Tensor, Tensor] = self._decoder.rotary_emb(x, position_ids=positions)
        return found

    def norm(self, x: Tensor) -> Tensor:
        """The final norm."""
        normed: Tensor = getattr(self._decoder, _name_of_final_norm(self._decoder))(x)
        return normed

    @property
    def hidden_size(self) -> int:
        """Width d of the hidden states."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def head_weight(self) -> Tensor:
        """(V, d) weight of the language-model head."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight

    def logits(self, products: Tensor) -> Tensor:
        """(…, V) products of the head's weight, changed in place → (…, V) logits."""
        return products if self.logit_map.is_identity else self.logit_map.apply_(at_least_float32(products))

    @torch.no_grad()
    def undivided(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) ids → final hidden states (B, L, d) and logits (B, L, V) by the model's own forward pass."""
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return self._decoder(input_ids=input_ids, use_cache=False).last_hidden_state, logits

    @property
    def device(self) -> torch.device:
        """The device of the base."""
        return self.head_weight.device

    @property
    def on_card(self) -> bool:
        """Whether it is on a GPU."""
        return self.device.type == "cuda" or is_simulated()

    def base_tensors(self) -> dict[str, Tensor]:
        """The frozen weights by name, with the tensors of quantized maps; without the weights of adapters."""
        named = self.model.named_parameters()
        return {name: value for name, value in named if ".lora_" not in name} | kept_codes(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the base."""
        return self.head_weight.dtype

    @torch.no_grad()
    def trunk(self, input_ids: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, L) right-padded ids → (B, L, d) hidden states at the boundary. Carries no gradient."""
        embedded: Tensor = self._embed(input_ids)
        if not self.trunk_layers:
            return embedded
        states: Tensor = self._trunk(inputs_embeds=embedded, use_cache=False, **_arguments(layout)).last_hidden_state
        return states

    def upper(self, boundary: Tensor, layout: Layout | None = None, *, at: TokenPositions | None = None) -> Tensor:
        """(B, L, d) boundary → hidden states after the last layer and final norm, (B, L, d), or (N, d) of the N in
        ``at``."""
        with nullcontext() if self._first is None else self._first.given(boundary):
            return self._final(self._upper, at, inputs_embeds=boundary, **_arguments(layout))

    def whole(self, input_ids: Tensor, layout: Layout | None = None, *, at: TokenPositions | None = None) -> Tensor:
        """(B, L) right-padded ids → final hidden states like `upper`, every weight in the graph (full fine-tuning)."""
        return self._final(self._whole, at, input_ids=input_ids, **_arguments(layout))

    def _final(self, part: nn.Module, at: TokenPositions | None, **arguments: Tensor) -> Tensor:
        with self._last.selecting(at if self.chooses else None):
            hidden: Tensor = part(use_cache=False, **arguments).last_hidden_state
        return hidden if at is None or self.chooses else gather_positions(hidden, at)

    def decode(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Process (B, T) new ids after the contents of ``cache`` → (B, d) last hidden state, after the final norm.

        ``attention_mask`` (B, past + T) covers the cache too; rows are padded on the left.
        """
        output = self._decoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state[:, -1]
        return hidden

    def _slice(self, first: int, last: int) -> nn.Module:
        """The decoder with layers ``first`` to ``last`` alone; the modules are shared, not copied."""
        part = copy.copy(self._decoder)
        part._modules = dict(self._decoder._modules)
        part._modules[self._list_name] = nn.ModuleList(getattr(self._decoder, self._list_name)[first:last])
        config = copy.copy(self._decoder.config)
        if getattr(config, "layer_types", None):
            with suppress(AttributeError):  # computed from other numbers: the output of the part is compared
                config.layer_types = config.layer_types[first:last]
        config.num_hidden_layers = last - first
        part.config = config
        if last < self.layer_count:
            part._modules[_name_of_final_norm(self._decoder)] = nn.Identity()
        return part  # type: ignore[no-any-return]

    def compile_layers(self) -> None:
        """Compile the layers above the boundary, which passes with gradients run."""
        self.compilation = Compilation()
        self.compilation.wrap(getattr(self._upper, self._list_name))

    def give_boundary(self) -> None:
        """Feed the boundary to the first of the upper layers, bypassing what the decoder does to its input."""
        layers = getattr(self._upper, self._list_name)
        if isinstance(layers[0], Recomputed):
            self._first = layers[0].layer = FirstLayer(layers[0].layer)
        else:
            self._first = layers[0] = FirstLayer(layers[0])
        self.recomputation.restore_hooks.append(self._first.as_now)


def _arguments(layout: Layout | None) -> dict[str, Tensor]:
    return {} if layout is None else {"position_ids": layout.positions, "attention_mask": layout.attention}


def layers_of(model: Any) -> list[nn.Module]:
    """The layers of a causal language model, the lowest first.

    Raises:
        ModelError: it has no list of layers.
    """
    decoder = model.get_decoder()
    return list(getattr(decoder, _name_of_layers(decoder)))


def _name_of_layers(decoder: nn.Module) -> str:
    for name, module in decoder.named_children():
        if isinstance(module, nn.ModuleList) and len(module):
            return name
    raise ModelError(f"{type(decoder).__name__} has no list of layers; use a decoder-only model of transformers")


def _name_of_final_norm(decoder: nn.Module) -> str:
    for name, module in reversed(list(decoder.named_children())):
        if "norm" in type(module).__name__.lower():
            return name
    raise ModelError(f"{type(decoder).__name__} has no final norm; use a decoder-only model of transformers")
