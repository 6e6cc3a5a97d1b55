"""The sum of some weights, by which two moments or two runs are compared."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from triphase.models.sharded_loading import local_part


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors' names and bytes, in their order; of a sharded one, those that this process has."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(local_part(tensor).detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
