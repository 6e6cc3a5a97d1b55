"""Cross-fitted score heads: in training, each ranking is scored by a head that has not seen its prompt.

    r(x, y) = w·h + b + (w₋ₖ − w₀)·h + (b₋ₖ − b₀)        k: the fold of the prompt x; w₀, b₀: the head as it was fitted

The head was fitted to the same rankings that the adapter is trained on, so it already orders most of them: their
gradient is small, and what remains comes from labels that contradict the rest. The fit to the other folds, w₋ₖ, orders
them as it would order new ones. With a single pass neither head nor adapter has seen the rankings of a step, so its
loss is that of new rankings (with a head fitted to four fifths of the prompts). What is kept is the trained head w,
which starts at w₀.
Source: cross-fitting (Chernozhukov et al., arXiv 1608.00060, Sec. 3), applied to linear probing before fine-tuning
(Kumar et al., arXiv 2202.10054).
"""

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from triphase.batches.transfers import index_on


class CrossFit:
    """The difference of the scores of rankings in training from those of the head."""

    def __init__(self, fits: Sequence[Sequence[float]], fold_of: Mapping[Hashable, int], device: torch.device) -> None:
        """``fits`` has weight and bias of each fold, less the head's; ``fold_of`` the fold of each prompt."""
        self._fold_of = fold_of
        self._fits = torch.tensor(fits, dtype=torch.float32).to(device)

    def of(self, prompts: Sequence[Hashable], hidden: Tensor) -> Tensor:
        """(N,) the differences for N responses, from their prompts and the (N, d) features that the head reads."""
        fits = self._fits[index_on([self._fold_of[prompt] for prompt in prompts], self._fits.device)]
        return (hidden.float() * fits[:, :-1]).sum(-1) + fits[:, -1]
