"""The parts of the language-model head: the (V, d) weight, and what follows the product (`LogitMap`).

transformers writes the scale and the soft cap into each family's forward pass, under the family's own names in the
configuration. They are read here, and `Backbone` compares the result with the logits of the model itself.
"""

from typing import Any

from torch import Tensor

from triphase.errors import ModelError
from triphase.objectives.logits import LogitMap

_CAP = "final_logit_softcapping"
_FACTORS = ("logit_scale", "lm_head_multiplier")
_DIVISORS = ("logits_scaling",)


def logit_map_of(model: Any) -> LogitMap:
    """What the head of a causal language model applies to its products, from its configuration.

    Raises:
        ModelError: a number in it is not valid for a head.
    """
    config = model.config.get_text_config()
    cap, scale = _number(config, _CAP), 1.0
    for name in _FACTORS:
        scale *= _number(config, name) or 1.0
    for name in _DIVISORS:
        scale /= _number(config, name) or 1.0
    if cap is not None and cap < 0:
        raise ModelError(f"config.json: {_CAP} is {cap}; it must be above 0. Copy the model's own config.json")
    bias: Tensor | None = getattr(model.get_output_embeddings(), "bias", None)
    return LogitMap(scale, cap or None, bias)


def _number(config: Any, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
