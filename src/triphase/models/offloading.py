"""Frozen tensors that are offloaded to the host's memory while no pass of a phase reads them.

An offloaded tensor is replaced in its module, so a pass that reads it anyway fails at once: its device is another one.
Frozen tensors are copied to the host once, and later only moved back; one that was changed meanwhile is copied again.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from triphase.batches.transfers import to_device, to_host

Place = tuple[MutableMapping[str, Any], str]
"""A module's own table of parameters or buffers, and the name of one of them."""


@dataclass(slots=True)
class _Copy:
    """A tensor's copy on the host, and what was on the device when it was equal to it; ``is_used``: instead of that."""

    host: Tensor
    device: torch.device
    on_device: Callable[[], Tensor | None]
    version: int
    is_used: bool = False


class Offloaded:
    """Tensors that are offloaded and loaded back together.

    If memory does not suffice for all of them, the rest follows at the next call.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self._copies: list[_Copy | None] = [None] * len(places)

    @torch.no_grad()
    def offload(self) -> None:
        """Replace the tensors by their copies on the host."""
        for number, (table, name) in enumerate(self._places):
            tensor, copy = table[name], self._copies[number]
            if tensor is None or (copy is not None and copy.is_used):
                continue
            if copy is None or copy.version != tensor._version or copy.on_device() is not tensor:
                host = to_host(tensor.detach())
                copy = self._copies[number] = _Copy(host, tensor.device, weakref.ref(tensor), tensor._version)
            table[name], copy.is_used = _in_place_of(tensor, copy.host), True

    @torch.no_grad()
    def reload(self) -> None:
        """Replace the copies by tensors on their device."""
        for copy, (table, name) in zip(self._copies, self._places, strict=True):
            if copy is None or not copy.is_used:
                continue
            back = table[name] = _in_place_of(table[name], to_device(copy.host, copy.device))
            copy.on_device, copy.version, copy.is_used = weakref.ref(back), back._version, False


def _in_place_of(old: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new


def places_of(modules: Iterable[nn.Module]) -> Iterator[Place]:
    """Every parameter and buffer of modules, without those of adapters."""
    for outer in modules:
        for module in outer.modules():
            if not isinstance(module, nn.ParameterDict):
                yield from ((module._parameters, name) for name in module._parameters)
                yield from ((module._buffers, name) for name in module._buffers)
