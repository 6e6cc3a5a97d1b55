"""Why the metrics of a rollout are not finite, and the remedy: the first cause, from which the others follow."""

import torch

from triphase.phases.experience import Experience
from triphase.settings.phase_names import REWARD, SFT
from triphase.training.artifacts import name_of

SHOWN_AS = {
    "logprobs": "ppo/reference_kl",
    "reference_logprobs": "ppo/reference_kl",
    "values": "ppo/value_loss",
    "scores": "ppo/proxy_score",
}
"""The metric under which a tensor that is not finite is reported."""


def cause_of(experience: Experience, *, scorer: str | None, updates: int) -> str:
    """One sentence: where the first NaN or infinity comes from, and the remedy.

    Args:
        scorer: the scorer, if it is not the reward model; None is the reward model.
        updates: optimizer steps before this rollout.
    """
    broken = experience.nonfinite
    if "reference_logprobs" in broken or ("logprobs" in broken and not updates):
        return (
            f"The frozen weights themselves cause it: set model.dtype: float32, and check "
            f"{name_of(SFT)} (its phase can be run again) or look for unusual records"
        )
    if broken == ("scores",):
        wrong = ~torch.isfinite(experience.scores)
        count, total = int(wrong.sum()), len(experience.scores)
        if scorer is not None:
            return (
                f"The scorer {scorer} returned null, NaN or infinity for {count} of {total} responses (the first is "
                f"number {int(wrong.nonzero()[0])} of the batch): make it return a finite number for every response"
            )
        return (
            f"The reward model caused it for {count} of {total} responses, and the policy did not: set model.dtype: "
            f"float32, or train the reward model again (remove {name_of(REWARD)})"
        )
    return "Lower ppo.optimizer.learning_rate, set model.dtype: float32, or look for unusual records in these batches"
