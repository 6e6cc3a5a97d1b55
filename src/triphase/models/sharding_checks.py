"""Comparisons when a decoder is divided, so that no assumption is made about untested model families."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from triphase.batches.padding import Layout
from triphase.errors import ModelError, first_line_of
from triphase.models.layers import gather_positions

if TYPE_CHECKING:
    from triphase.models.backbone import Backbone

_PROBE_TOKENS = 8
_HALF = 1e-5
"""Spacing of numbers near 1 from which a dtype counts as half precision: 1e-3 in float16, 8e-3 in bfloat16."""
_FAILURES = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


def require_exact_division(backbone: "Backbone") -> None:
    """Refuse a model whose parts differ from the whole, or whose head is not a linear map with a `LogitMap`.

    Raises:
        ModelError: says what differs, and the remedy.
    """
    try:
        _compare(backbone)
    except _FAILURES as error:
        raise ModelError(
            f"{_name(backbone)} does not run when it is split at layer {backbone.trunk_layers} "
            f"({type(error).__name__}: {first_line_of(error, 120)}); {_remedy(backbone)}"
        ) from error


def require_no_own_inputs(backbone: "Backbone") -> None:
    """Refuse a trunk if each layer reads the tokens in addition to its input states (Gemma 3n and 4).

    Raises:
        ModelError: there is a trunk, and they do.
    """
    width = getattr(backbone.model.config.get_text_config(), "hidden_size_per_layer_input", None)
    if width and backbone.trunk_layers:
        raise ModelError(
            f"{_name(backbone)} cannot be split at layer {backbone.trunk_layers}: each of its layers reads the "
            "tokens themselves (hidden_size_per_layer_input in config.json); set adapters.layers: all"
        )


def _remedy(backbone: "Backbone") -> str:
    whole = "set adapters.layers: all, or " if backbone.trunk_layers else ""
    return f"{whole}use one of the families in docs/models.md"


def _name(backbone: "Backbone") -> str:
    return type(backbone.model).__name__


@torch.no_grad()
def _compare(backbone: "Backbone") -> None:
    vocabulary = backbone.head_weight.shape[0]
    ids = torch.arange(_PROBE_TOKENS, device=backbone.device)[None] * 7 % vocabulary
    decoder, logits = backbone.undivided(ids)
    if decoder.shape[-1] != backbone.hidden_size:
        raise ModelError(
            f"{_name(backbone)} returns hidden states of size {decoder.shape[-1]}, but config.json says hidden_size "
            f"{backbone.hidden_size}; use one of the families in docs/models.md"
        )
    if not bool(torch.isfinite(decoder).all() and torch.isfinite(logits).all()):
        raise ModelError(
            f"{_name(backbone)} returns hidden states that are not finite, although its weights "
            f"are: a number in config.json "
            "(rms_norm_eps, the rotary positions) is not the one that it was trained with; copy that file again"
        )
    divided = backbone.upper(backbone.trunk(ids))
    if backbone.trunk_layers and not torch.equal(divided, decoder):
        backbone.give_boundary()
        divided = backbone.upper(backbone.trunk(ids))
    if not torch.equal(divided, decoder):
        raise ModelError(
            f"{_name(backbone)} cannot be split at layer {backbone.trunk_layers}: its layers are "
            f"not a simple sequence; {_remedy(backbone)}"
        )
    expected = backbone.logits(nn.functional.linear(decoder, backbone.head_weight))
    if not _differ_by_rounding(logits, expected):
        raise ModelError(
            f"the language-model head of {_name(backbone)} is not a linear layer with an "
            f"optional bias, scale or soft cap, which the chunked log-probabilities need; "
            f"docs/models.md lists supported families"
        )


def _differ_by_rounding(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits of the model are the ``expected`` ones, of the same products.

    In half precision the model rounds after the bias, the scale and each operation of the cap, and we only after the
    product. These errors are independent, so the norm of the difference is compared instead of single logits.
    """
    precision = torch.finfo(logits.dtype).eps
    if precision < _HALF:
        return torch.allclose(logits.float(), expected.float(), rtol=1e-3, atol=1e-3)
    return bool((logits.float() - expected.float()).norm() <= 2 * precision * expected.float().norm())


@torch.no_grad()
def chooses_rightly(backbone: "Backbone") -> bool:
    """Whether the last layer computes the same states for selected tokens alone as among all tokens."""
    ids = torch.arange(2 * _PROBE_TOKENS, device=backbone.device).view(2, -1) * 7 % backbone.head_weight.shape[0]
    at = (torch.tensor([0, 1, 1], device=backbone.device), torch.tensor([3, 7, 2], device=backbone.device))
    boundary = backbone.trunk(ids)
    expected = gather_positions(backbone.upper(boundary), at)
    try:
        found = backbone.upper(boundary, at=at)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False  # its attention has another signature
    tolerance = 1e-4 if backbone.dtype == torch.float32 else 5e-2
    return float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


@torch.no_grad()
def packs_rightly(backbone: "Backbone") -> bool:
    """Whether two responses in one row get the hidden states of separate rows: not with positions that the attention
    counts by itself, nor where it adds the mask instead of applying it."""
    prompt, first, second = (3, 5, 7), (11, 2), (4, 6)
    vocabulary = backbone.head_weight.shape[0]

    def ids(*parts: tuple[int, ...]) -> Tensor:
        return torch.tensor([[token % vocabulary for part in parts for token in part]], device=backbone.device)

    apart = torch.cat([backbone.upper(backbone.trunk(ids(prompt, own)))[:, 3:] for own in (first, second)], dim=1)
    sees = torch.ones((7, 7), dtype=torch.bool, device=backbone.device).tril()
    sees[5:, 3:5] = False
    layout = Layout(torch.tensor([[0, 1, 2, 3, 4, 3, 4]], device=backbone.device), sees[None, None])
    try:
        row = ids(prompt, first, second)
        packed = backbone.upper(backbone.trunk(row, layout), layout)[:, 3:]
    except (ValueError, TypeError, RuntimeError):
        return False  # the model does not take a mask of this form
    tolerance = 1e-4 if backbone.dtype == torch.float32 else 5e-2
    return float((packed - apart).abs().max()) <= tolerance * max(1.0, float(apart.abs().max()))
