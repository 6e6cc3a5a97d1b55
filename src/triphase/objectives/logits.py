"""From logits to log-probabilities, and the scale, bias and soft cap that a head applies to make logits.

    z = c·tanh(s·(W h + b)/c)        without a cap  z = s·(W h + b)

Cohere multiplies logits by `logit_scale`, Granite divides them by `logits_scaling`, Gemma 2 caps them; Phi 2 and GPT-J
have a bias. All of it belongs to the model and comes before temperature and log-softmax.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.objectives.masking import at_least_float32
from triphase.objectives.shapes import require_positive, require_same_shape


@dataclass(frozen=True, slots=True)
class LogitMap:
    """From the products W·h to the logits.

    Attributes:
        scale: s, not 0.
        cap: c > 0, the bound that logits approach and never reach; None for no cap.
        bias: (V,) b.
    """

    scale: float = 1.0
    cap: float | None = None
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        if self.cap is not None:
            require_positive(cap=self.cap)

    @property
    def is_identity(self) -> bool:
        """Whether the products are the logits."""
        return self.scale == 1.0 and self.cap is None and self.bias is None

    def apply(self, products: Tensor) -> Tensor:
        """(…, V) products W·h → (…, V) logits, with autograd."""
        logits = products if self.bias is None else products + self.bias.to(products.dtype)
        logits = logits if self.scale == 1.0 else logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    @torch.no_grad()
    def apply_(self, products: Tensor) -> Tensor:
        """`apply` in place, without autograd."""
        if self.bias is not None:
            products.add_(self.bias.to(products.dtype))
        if self.scale != 1.0:
            products.mul_(self.scale)
        return products if self.cap is None else products.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, logits: Tensor) -> Tensor | None:
        """(…, V) derivative of the soft cap, 1 − (z/c)², at these logits; None without a cap."""
        return None if self.cap is None else (logits / self.cap).square_().neg_().add_(1.0)


PLAIN = LogitMap()


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Log-probability of each target token under the policy at a temperature.

        log π(y) = z_y/T - log Σ_v exp(z_v/T)

    Args:
        logits: (..., V).
        targets: (...) int64 token ids in [0, V).
        temperature: T > 0; the one the tokens were sampled with, for policy, rollout policy and reference alike.

    Returns:
        (...) float32, or float64 for float64 logits.

    Raises:
        ValueError: shapes do not fit, or the temperature is not above 0.
    """
    require_same_shape(targets=targets, logits_without_vocabulary=logits[..., 0])
    require_positive(temperature=temperature)
    logprobs = (at_least_float32(logits) / temperature).log_softmax(-1)
    return logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor, temperature: float) -> Tensor:
    """Entropy of the policy over the full vocabulary, in nats.

        H = -Σ_v p_v · log p_v,   p = softmax(z/T)

    Args:
        logits: (..., V).
        temperature: T > 0.

    Returns:
        (...) float32, or float64 for float64 logits.

    Raises:
        ValueError: the temperature is not above 0.
    """
    require_positive(temperature=temperature)
    logprobs = (at_least_float32(logits) / temperature).log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)
