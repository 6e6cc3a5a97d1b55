"""Attention in bfloat16 on a CPU, computed in float32 for short rows.

torch multiplies the small matrices of a head in its backward pass several times slower in bfloat16 than in float32
(docs/performance.md has the difference). Its inputs are converted, and its output back; scores, which were rounded
nowhere before, are not rounded now either.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from triphase.models.simulated_card import is_simulated

NAME = "sdpa_of_short_rows"
_LONGEST = 512  # with longer rows the two are equally fast


def use_for(model: Any) -> None:
    """Let a model whose attention is torch's, in bfloat16, compute it this way; any other is left alone."""
    weight = model.get_output_embeddings().weight
    if model.config._attn_implementation == "sdpa" and weight.dtype == torch.bfloat16:
        model.config._attn_implementation = NAME


def _forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *arguments: Any, **options: Any
) -> Any:
    """(B, H, L, D) queries, keys and values as transformers' own function takes them."""
    dtype = query.dtype
    if dtype != torch.bfloat16 or is_simulated() or query.device.type != "cpu" or key.shape[2] > _LONGEST:
        return sdpa_attention_forward(module, query, key, value, mask, *arguments, **options)
    if mask is not None and mask.dtype == dtype:  # one that is added to the scores has their dtype
        mask = mask.float()
    wide = query.float(), key.float(), value.float()
    mixed, weights = sdpa_attention_forward(module, *wide, mask, *arguments, **options)
    return mixed.to(dtype), weights


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
