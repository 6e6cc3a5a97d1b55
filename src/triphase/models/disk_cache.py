"""A memory-mapped file for tensors that do not fit in memory, without a name, so that it cannot be left behind.

The file is unlinked on creation, so the system frees it when the process ends, however it ends. Its space is reserved
at once: a full disk is an error then, not a crash in the middle of a write to the mapping.
"""

import mmap
import os
import tempfile
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from triphase.records.files import disk_errors


class DiskCache:
    """Tensors at byte offsets of an unnamed file.

    Attributes:
        written: the offsets that hold a tensor.
    """

    def __init__(self, size: int, directory: Path | None) -> None:
        """Reserve ``size`` bytes on the disk of ``directory``.

        Raises:
            RunError: the disk is full or cannot be written.
        """
        self.written: set[int] = set()
        place = directory or Path(tempfile.gettempdir())
        with disk_errors(place):
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place) as file:
                os.posix_fallocate(file.fileno(), 0, size)
                self._map = mmap.mmap(file.fileno(), size)

    def write(self, offset: int, tensor: Tensor) -> None:
        """Write a tensor at an offset."""
        content = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        self._map[offset : offset + len(content)] = content
        self.written.add(offset)
        self._forget()

    def read(self, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor at an offset, copied into memory."""
        content = bytearray(self._map[offset : offset + prod(shape) * dtype.itemsize])
        self._forget()
        return torch.frombuffer(content, dtype=dtype).view(shape)

    def close(self) -> None:
        """Free the space."""
        self._map.close()

    def _forget(self) -> None:
        # The pages stay in the file and its cache, which the system reclaims when needed; this process no longer maps
        # them.
        self._map.madvise(mmap.MADV_DONTNEED)
