"""Transfers from the CPU to the model's device, for which the CPU does not wait, and back, for which it does.

A GPU copies pinned memory asynchronously, while it computes. Any other memory is first copied by the driver, which may
wait until the GPU has finished all its queued work.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def index_on(numbers: Sequence[int], device: torch.device | str) -> Tensor:
    """(N,) whole numbers on ``device``, as an index. As a list they would be uploaded too, and waited for."""
    return to_device(torch.tensor(numbers, dtype=torch.long), device)


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """``values`` on ``device``: unchanged if already there, to a CUDA device through pinned memory."""
    target = torch.device(device)
    if target.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()  # torch keeps the pinned copy until the transfer is done
    return values.to(target, non_blocking=True)


def to_host(values: Tensor) -> Tensor:
    """``values`` in the host's memory, pinned for the way back if they come from a CUDA device."""
    host = values.to("cpu")
    return host.pin_memory() if values.device.type == "cuda" else host
