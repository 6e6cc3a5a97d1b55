"""The root-mean-square norm of a layer in one kernel, where a GPU would run one for each of its eight operations.

y = x / √(mean(x²) + ε) · w
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def norm_of(module: Any) -> Callable[[Tensor], Tensor]:
    """The norm for decoding: on a CUDA device one kernel if it is of this kind, else the module itself."""
    weight = getattr(module, "weight", None)
    is_on_card = isinstance(weight, Tensor) and weight.device.type == "cuda"
    return OneKernel(module) if is_on_card and is_root_mean_square(module) else module


def is_root_mean_square(module: Any) -> bool:
    """Whether it is the norm of Llama, Mistral and Qwen. Gemma's, which multiplies by 1 + w, names its ε otherwise."""
    return hasattr(module, "variance_epsilon") and getattr(module, "bias", None) is None


class OneKernel:
    """A module's norm. It reads the weight from the module, so that training the weight changes the norm too."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, x: Tensor) -> Tensor:
        """(…, d) → (…, d)."""
        weight: Tensor = self._module.weight
        if x.dtype != weight.dtype:
            mixed: Tensor = self._module(x)
            return mixed
        return nn.functional.rms_norm(x, weight.shape, weight, self._module.variance_epsilon)
