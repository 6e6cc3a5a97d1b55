"""Values on their way from the processor to the model's device; the processor does not wait until they are there.

A card fetches pinned memory by itself, while it computes. Any other memory the driver copies first, and for that it may
wait until the card has done all that it was asked for.
"""

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """``values`` on ``device``: what is there already as it is, to a CUDA device by way of pinned memory."""
    target = torch.device(device)
    if target.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()  # torch keeps the pinned copy until it was fetched
    return values.to(target, non_blocking=True)
