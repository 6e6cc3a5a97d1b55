"""A checksum of weights, to compare two moments or two runs."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from triphase.models.sharded_loading import local_part


def digest_of(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of the tensors' names and bytes, in their order; for a sharded one, of this process's part."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        digest.update(name.encode())
        digest.update(local_part(tensor).detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
