"""The cause of what is not finite is the first figure that the others follow from."""

import math

import pytest
import torch
from tests.small import samples

from triphase.batches.padding import pad_batch
from triphase.phases.experience import Experience
from triphase.phases.nonfinite_causes import cause_of


def experience(*nonfinite: str, scores: tuple[float, ...] = (0.0, 0.0)) -> Experience:
    batch = pad_batch(samples(2), pad_id=0, device=torch.device("cpu"))
    empty = torch.zeros(batch.response_mask.shape)
    return Experience(batch, empty, [], empty, empty, empty, empty, torch.tensor(scores), nonfinite)


@pytest.mark.parametrize(
    ("nonfinite", "scorer", "updates", "told"),
    [
        (("scores",), "http://here/score", 0, "The scorer http://here/score returned null, NaN or infinity for 1 of 2"),
        (("scores",), None, 5, "The reward model caused it for 1 of 2 responses"),
        (("reference_logprobs", "logprobs"), None, 5, "The frozen weights themselves"),
        (("logprobs", "values"), None, 0, "The frozen weights themselves"),
        (("logprobs", "scores"), "http://here/score", 5, "Lower ppo.optimizer.learning_rate"),
        (("values",), None, 5, "Lower ppo.optimizer.learning_rate"),
    ],
)
def test_the_cause_is_named(nonfinite: tuple[str, ...], scorer: str | None, updates: int, told: str) -> None:
    found = cause_of(experience(*nonfinite, scores=(0.5, math.nan)), scorer=scorer, updates=updates)
    assert found.startswith(told)
    assert ("learning_rate" in found) == told.startswith("Lower")
