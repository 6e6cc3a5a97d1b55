"""Weights stored as their difference from others of the same shape, without loss.

    stored = compress(bytes of w ⊕ bytes of base, those of equal significance together)

Weights of neighboring iterations agree in sign, exponent and first digits, so the first bytes are mostly 0.
"""

import zlib

import numpy
import torch
from torch import Tensor

from triphase.errors import RunError

_LEVEL = 6


def packed(tensor: Tensor, base: Tensor) -> Tensor:
    """The difference of ``tensor`` from a ``base`` that is alike: (bytes,) in uint8."""
    planes = (_bytes(tensor) ^ _bytes(base)).reshape(-1, tensor.element_size()).T
    return torch.frombuffer(bytearray(zlib.compress(planes.tobytes(), _LEVEL)), dtype=torch.uint8)


def unpacked(stored: Tensor, base: Tensor) -> Tensor:
    """The tensor of which `packed` stored the difference from ``base``.

    Raises:
        RunError: it belongs to another base.
    """
    size, reader = base.numel() * base.element_size(), zlib.decompressobj()
    try:
        content = reader.decompress(stored.numpy().tobytes(), size + 1)
    except zlib.error as error:
        raise RunError(f"stored weights cannot be read ({error}); remove this checkpoint") from None
    if len(content) != size:
        raise RunError(f"stored weights have {len(content)} bytes, not {size}; remove this checkpoint")
    planes = numpy.frombuffer(content, dtype=numpy.uint8).reshape(base.element_size(), -1)
    whole = torch.empty(base.shape, dtype=base.dtype)
    _bytes(whole)[:] = planes.T.reshape(-1) ^ _bytes(base)
    return whole


def _bytes(tensor: Tensor) -> "numpy.ndarray[tuple[int], numpy.dtype[numpy.uint8]]":
    flat: numpy.ndarray[tuple[int], numpy.dtype[numpy.uint8]] = (
        tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    )
    return flat
