"""The fit of the score head alone, with the penalty that is given or chosen."""

import logging
from collections.abc import Hashable, Sequence
from typing import Any, Literal

from torch import Tensor

from triphase.monitoring.progress import Progress
from triphase.training.head_fit import (
    Flips,
    StackedPairs,
    choose_penalty,
    cross_fits,
    fit_count,
    fit_linear_scores,
)

_log = logging.getLogger(__name__)


def fitted_head(
    features: Tensor,
    pairs: StackedPairs,
    prompts: Sequence[Hashable],
    penalty: float | Literal["auto"],
    *,
    flips: Flips,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Weight and bias of the head, and the values of its `HeadFit`, as numbers that can be sent."""
    loss, curve = None, None
    if penalty == "auto":
        with progress.track("reward model: score head", fit_count(prompts), unit="fits") as track:
            choice = choose_penalty(features, pairs, prompts, seed=seed, flips=flips, on_fit=track.advance)
        if choice.loss is None:
            _log.warning(
                "all rankings are of one prompt: reward.head_penalty cannot be chosen by cross-validation and is %g",
                choice.penalty,
            )
        penalty, loss, curve = choice.penalty, choice.loss, [list(point) for point in choice.curve]
    weight, bias = fit_linear_scores(features, pairs, penalty=penalty, flips=flips)
    fits = cross_fits(features, pairs, prompts, penalty=penalty, seed=seed, flips=flips)
    apart = [[*(other - weight).tolist(), offset - bias] for other, offset in fits]
    fit = {"penalty": penalty, "loss": loss, "curve": curve, "cross_fits": apart}
    return {"weight": weight.tolist(), "bias": bias, "fit": fit}
