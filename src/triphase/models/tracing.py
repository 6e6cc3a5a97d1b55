"""The memory and operations of a computation, measured without doing it, on tensors without data.

The model is built from its configuration alone with torch's fake tensors, which have shape and dtype but no data. The
same modules that train run on them, under a meter that counts the bytes of each storage while it is alive and the
multiplications of each product. Layers are alike, so two and three of them are traced and the rest is extrapolated.
"""

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, masking_utils

from triphase.models.adapters import Adapters
from triphase.models.backbone import Backbone
from triphase.models.packing import PACKED_PRODUCT
from triphase.models.quantization import quantize, saved_numbers
from triphase.models.simulated_card import as_on_a_card

DEPTHS = (2, 3)
"""Numbers of layers that are traced. With one layer, its input would be the caller's and never be freed."""
_PRODUCTS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "addmm_": (1, 2), "baddbmm": (1, 2)}


@dataclass(frozen=True, slots=True)
class Traced:
    """What a computation needs in addition to what existed before it.

    Attributes:
        peak: maximum number of bytes at once.
        kept: bytes that its forward pass keeps for its backward pass (0 without one).
        flops: floating-point operations of its matrix products and attention.
    """

    peak: float
    kept: float = 0.0
    flops: float = 0.0

    def __add__(self, other: "Traced") -> "Traced":
        return Traced(self.peak + other.peak, self.kept + other.kept, self.flops + other.flops)

    def __mul__(self, factor: float) -> "Traced":
        return Traced(self.peak * factor, self.kept * factor, self.flops * factor)


class Meter(TorchDispatchMode):
    """Counts storages while they are alive, and the operations of products. Works on fake and on real tensors.

    Attributes:
        now, peak: bytes of the live storages that were created under the meter; the maximum so far.
        flops: floating-point operations so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self.flops = 0.0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._note(tensor, is_new=False)  # it existed before, or is counted already
        result = func(*args, **(kwargs or {}))
        self.flops += _flops(func, args)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor, is_new=True)
        return result

    def restart(self) -> None:
        """Reset the peak."""
        self.peak = self.now

    def _note(self, tensor: Tensor, *, is_new: bool) -> None:
        if tensor.is_mkldnn:  # packed weights have no storage
            self._count(tensor, id(tensor), tensor.numel() * tensor.itemsize * is_new)
        else:
            storage = tensor.untyped_storage()
            self._count(storage, storage._cdata, storage.nbytes() * is_new)

    def _count(self, owner: object, key: int, size: int) -> None:
        if key not in self._alive:
            self._alive[key] = size
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(owner, self._release, key)

    def _release(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


def _flops(func: Any, args: Any) -> float:
    name = func._overloadpacket.__name__
    if name in _PRODUCTS:
        left, right = (args[place] for place in _PRODUCTS[name])
        return 2.0 * float(left.numel()) * float(right.shape[-1])
    if name == PACKED_PRODUCT:
        return 2.0 * float(args[0].numel()) * float(args[1].shape[0])
    if "scaled_dot_product" in name:
        backward = "backward" in name
        query, key = args[1:3] if backward else args[0:2]
        products = 5 if backward else 2
        return float(2.0 * products * query.shape[:-1].numel() * key.shape[-2] * query.shape[-1])
    return 0.0


class Skeleton:
    """A decoder of ``depth`` layers without data, all of them adapted.

    Attributes:
        backbone, adapters: as in `SharedModel`, but without the comparisons of values.
    """

    def __init__(
        self,
        config: Any,
        dtype: torch.dtype,
        *,
        depth: int,
        rank: int,
        targets: Any,
        recompute: bool,
        trusted: bool,
        quantization: str | None = None,
        on_card: bool = False,
    ) -> None:
        self._on_card = on_card
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode:
            model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                with_depth(config, depth), dtype=dtype, trust_remote_code=trusted
            )
            model.eval().requires_grad_(False)
            if quantization is not None:
                quantize(model, quantization)
            self.backbone = Backbone(model, adapted_layers=None, recompute_activations=recompute, verified=False)
            self.adapters = Adapters(self.backbone, rank=rank, alpha=rank, targets=targets, seed=0)
            self.adapters.add("traced")
        self.dtype = dtype

    def train(self, *, adapter: bool) -> None:
        """Enable gradients for the adapter, or else for every weight."""
        self.backbone.model.requires_grad_(not adapter)
        self.adapters.train_only("traced" if adapter else None)
        self.adapters.activate("traced" if adapter else None)

    def freeze(self, *, adapter: bool = True) -> None:
        """No gradients; the adapter is active, or none."""
        self.adapters.train_only(None)
        self.backbone.model.requires_grad_(False)
        self.adapters.activate("traced" if adapter else None)

    def hidden(self, rows: int, length: int) -> Tensor:
        """(rows, length, d) hidden states without data."""
        return torch.empty(rows, length, self.backbone.hidden_size, dtype=self.dtype)

    def base_numbers(self) -> int:
        """Numbers in the base's weights; shared ones count once, quantized ones as before quantization."""
        wide = sum(value.numel() for value in self._base())
        return wide + saved_numbers(self.backbone.model)

    def base_bytes(self) -> int:
        """Bytes of the base's weights as stored."""
        return sum(value.nbytes for value in self.backbone.base_tensors().values())

    def largest_number(self) -> int:
        """Numbers in the base's largest weight."""
        return max(value.numel() for value in self._base())

    def _base(self) -> list[Tensor]:
        return [value for name, value in self.backbone.model.named_parameters() if ".lora_" not in name]

    def adapter_size(self) -> int:
        """Numbers in one adapter."""
        return sum(parameter.numel() for parameter in self.adapters.parameters("traced").values())

    def trace(self, forward: Callable[[], Tensor], *, backward: bool, again: bool = False) -> Traced:
        """Meter ``forward``, which returns a loss if ``backward`` is set.

        ``again``: the second of two passes is counted, in which gradients exist already and are accumulated.
        """
        with self._mode, _one_sequence_a_row(), self.computing(), Meter() as meter:
            if not backward:
                with torch.no_grad():
                    result = forward()
                del result
                return Traced(meter.peak, 0.0, meter.flops)
            if again:
                forward().backward()  # type: ignore[no-untyped-call]
                meter.flops = 0.0
            before = meter.now
            meter.restart()
            loss = forward()
            kept = meter.now - before
            loss.backward()  # type: ignore[no-untyped-call]
            return Traced(meter.peak - before, kept, meter.flops)

    def computing(self) -> AbstractContextManager[None]:
        """A context in which the computations are those of the device that is planned for."""
        return as_on_a_card() if self._on_card else nullcontext()

    def trace_in_turn(self, first: Callable[[], None], second: Callable[[], None]) -> tuple[Traced, Traced]:
        """Meter two computations, the second on the results of the first; their size is its ``kept``."""
        with self._mode, torch.no_grad(), self.computing(), Meter() as meter:
            first()
            before, peak, flops = meter.now, meter.peak, meter.flops
            meter.restart()
            second()
            return Traced(peak, 0.0, flops), Traced(meter.peak - before, before, meter.flops - flops)


@contextmanager
def _one_sequence_a_row() -> Iterator[None]:
    """Without data transformers cannot see that no row holds several sequences, and would build masks for them."""
    before = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda *_, **__: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = before


def with_depth(config: Any, depth: int) -> Any:
    """The configuration with its top ``depth`` layers only; if it has fewer, their kinds repeat."""
    made = copy.deepcopy(config)
    text = made.get_text_config()
    if getattr(text, "layer_types", None):
        with suppress(AttributeError):  # some are derived from other settings and cannot be set
            text.layer_types = (list(text.layer_types) * depth)[-depth:]
    text.num_hidden_layers = depth
    return made


def extrapolated(fewer: Traced, more: Traced, layers: int) -> Traced:
    """Extrapolates from `DEPTHS` layers to ``layers``: each further layer adds as much as the last one did."""
    return fewer + (more + fewer * -1.0) * (layers - DEPTHS[0])
