"""A fake accelerator: tensors that report another device, and compute on the processor.

Every operation is looked at on its way. A tensor of the processor beside one of the card is an error, as it is on a
real card; what would make a real card wait for the processor is counted. So that every phase keeps to its device is
seen without one, with real values: what the card computes is compared with what the processor computes.

It takes torch's place for devices of others for the whole process: use it in a process of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "card"
_aten = torch.ops.aten
# What waits for the card because its answer is a number or a shape on the processor's side.
_WAITS = {
    _aten._local_scalar_dense.default: "item",
    _aten.nonzero.default: "nonzero",
    _aten.masked_select.default: "masked_select",
    _aten.masked_scatter_backward.default: "masked_scatter_backward",
    _aten._unique2.default: "unique",
    _aten.equal.default: "equal",
    _aten.repeat_interleave.Tensor: "repeat_interleave",
}
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)
_TAKE_NUMBERS = (*_INDEXING, _aten.fill_.Tensor, _aten.masked_fill.Tensor, _aten.masked_fill_.Tensor)


class MixedDevicesError(RuntimeError):
    """An operation was given tensors of two devices."""


class OnCard(Tensor):
    """A tensor of the card; ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnCard":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnCard({self.held!r})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.tolist:
            return args[0].cpu().tolist()
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], _with_tensors(args[1]), *args[2:])
        return torch._C._disabled_torch_function_impl(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Watch:
    """What was seen while it was on.

    Attributes:
        waits: how often the processor waited for the card, by operation; also for values to arrive there that were not
            sent without waiting (a list as an index is sent so).
        uploads: how often values went to the card.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.uploads = 0


_watches: list[Watch] = []


@contextmanager
def watching() -> Iterator[Watch]:
    """Count waits and uploads inside."""
    watch = Watch()
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    target = kwargs.get("device")
    to_processor = target is not None and torch.device(target).type == "cpu"
    _refuse_mixture(func, args, kwargs)
    _count(func, args, kwargs, to_processor)
    made = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func is _aten._to_copy.default and to_processor:
        return made
    if func is _aten.copy_.default and not isinstance(args[0], OnCard):
        return args[0]  # what ran in place ran on it
    made = tree_map(lambda each: OnCard(each) if type(each) is Tensor else each, made)
    return return_and_correct_aliasing(func, args, kwargs, made)


def _with_tensors(index: Any) -> Any:
    """Lists in an index as tensors of the processor, which is what torch makes of them before it uploads them."""
    if isinstance(index, tuple):
        return tuple(_with_tensors(each) for each in index)
    return torch.tensor(index, dtype=torch.int64) if isinstance(index, list) else index


def _held(each: Any) -> Any:
    if isinstance(each, OnCard):
        return each.held
    return torch.device("cpu") if isinstance(each, torch.device) else each


def _refuse_mixture(func: Any, args: Any, kwargs: Any) -> None:
    if func in _INDEXING and isinstance(args[0], OnCard):  # positions may come from the processor; that is an upload
        args = (args[0], *args[2:])
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    if func in (_aten._to_copy.default, _aten.copy_.default, _aten.copy.default):
        return
    on_card = [each for each in tensors if isinstance(each, OnCard)]
    # Numbers may stand beside where elements are computed one by one, but are not joined with what is on a card.
    numbers = torch.Tag.pointwise in func.tags or func in _TAKE_NUMBERS
    others = [each for each in tensors if not isinstance(each, OnCard) and (each.ndim or not numbers)]
    if on_card and others:
        raise MixedDevicesError(f"{func}: {tuple(others[0].shape)} {others[0].dtype} of the processor beside the card")


def _count(func: Any, args: Any, kwargs: dict[str, Any], to_processor: bool) -> None:
    if not _watches:
        return
    name = _WAITS.get(func)
    uploads = blocks = False
    if func is _aten._to_copy.default:
        if to_processor and isinstance(args[0], OnCard):
            name = "to the processor"
        uploads = not isinstance(args[0], OnCard)
        blocks = not kwargs.get("non_blocking")
    if func in _INDEXING:
        if any(each.dtype == torch.bool for each in args[1] if isinstance(each, Tensor)):
            name = "boolean index"
        uploads = blocks = any(isinstance(each, Tensor) and not isinstance(each, OnCard) for each in args[1])
    if func is _aten.copy_.default:
        name = "copy to the processor" if isinstance(args[1], OnCard) and not isinstance(args[0], OnCard) else name
        uploads = isinstance(args[0], OnCard) and not isinstance(args[1], OnCard)
        blocks = not (len(args) > 2 and args[2])
    if uploads and blocks:  # from memory that is not pinned torch waits until the card has taken it
        name = "to the card"
    for watch in _watches:
        if name is not None:
            watch.waits[name] += 1
        watch.uploads += uploads


class _Module(_DummyBackendModule):
    """What torch asks the module of a device for; the card draws nothing."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        """No state."""
        return torch.empty(0, dtype=torch.uint8)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """For the autocast that recomputation asks about."""
        return [torch.bfloat16, torch.float16]

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """No state to set."""


def install() -> torch.device:
    """Bring the card into this process, once."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
    _kept.append(library)
    # These two make their tensor on the processor first, on a path that a device in Python does not have.
    for name in ("tensor", "as_tensor"):
        setattr(torch, name, _through_the_processor(getattr(torch, name)))
    # This one makes its tensor empty first, and a tensor of the card keeps its size.
    torch.arange = _at_once(torch.arange)  # type: ignore[assignment]
    return torch.device(NAME, 0)


_kept: list[Any] = []


def _through_the_processor(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        if isinstance(data, OnCard):
            return make(data, device=device, **kwargs)
        tensor = make(data, **kwargs)
        return tensor if device is None else tensor.to(device)

    return made


def _at_once(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(*arguments: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if device is None or torch.device(device).type != NAME:
            return make(*arguments, device=device, **kwargs)
        return OnCard(make(*arguments, **kwargs))

    return made
