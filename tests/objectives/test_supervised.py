import math

import pytest
import torch
from tests.objectives.examples import noise, response_mask, spoiled
from torch.nn.functional import cross_entropy

from triphase import objectives

LENGTHS = [5, 1, 3, 2]
MASK = response_mask(LENGTHS)
LOGPROBS = -noise(4, 5).abs()


def test_hand_value() -> None:
    logprobs = torch.tensor([[0.5, 0.25], [0.125, 1.0]], dtype=torch.float64).log()
    loss, metrics = objectives.response_nll(logprobs, response_mask([2, 1]))
    assert loss.item() == pytest.approx(6 * math.log(2) / 3)
    assert metrics.nll_sum.item() == pytest.approx(6 * math.log(2))
    assert metrics.mean_nll.item() == pytest.approx(2 * math.log(2))
    assert metrics.token_count == 3


def test_agrees_with_torch_cross_entropy() -> None:
    logits, targets = noise(4, 5, 7), torch.arange(20).reshape(4, 5) % 7
    loss, _ = objectives.response_nll(objectives.token_logprobs(logits, targets, 1.0), MASK)
    ignored = targets.masked_fill(~MASK, -100)
    assert loss.item() == pytest.approx(cross_entropy(logits.flatten(0, 1), ignored.flatten()).item())


def test_microbatches_add_up_to_the_step() -> None:
    whole, _ = objectives.response_nll(LOGPROBS, MASK)
    count = int(MASK.sum())
    for size in (1, 2, 3):
        parts = zip(LOGPROBS.split(size), MASK.split(size), strict=True)
        total = sum(objectives.response_nll(*part, token_count=count)[0] for part in parts)
        assert float(total) == pytest.approx(whole.item(), abs=1e-12)


def test_a_mean_of_microbatch_means_weighs_short_responses_more() -> None:
    """Regression: what the token count of the step is for."""
    whole, _ = objectives.response_nll(LOGPROBS, MASK)
    parts = [objectives.response_nll(*part)[0] for part in zip(LOGPROBS.split(1), MASK.split(1), strict=True)]
    assert abs(float(sum(parts)) / 4 - whole.item()) > 0.05


def test_the_metrics_do_not_depend_on_the_divisor() -> None:
    _, alone = objectives.response_nll(LOGPROBS, MASK)
    loss, metrics = objectives.response_nll(LOGPROBS, MASK, token_count=100)
    assert metrics == alone
    assert loss.item() == pytest.approx(metrics.nll_sum.item() / 100)


@pytest.mark.parametrize("junk", [7.0, float("nan"), float("-inf")])
def test_padding_changes_neither_loss_nor_gradient(junk: float) -> None:
    logprobs = spoiled(LOGPROBS, MASK, junk).requires_grad_()
    loss, metrics = objectives.response_nll(logprobs, MASK)
    loss.backward()
    assert loss.item() == objectives.response_nll(LOGPROBS, MASK)[0].item()
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, -MASK.double() / MASK.sum())
    assert not metrics.mean_nll.requires_grad


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="selects no element"):
        objectives.response_nll(LOGPROBS, torch.zeros_like(MASK))
    with pytest.raises(ValueError, match="whole optimizer step"):
        objectives.response_nll(LOGPROBS, MASK, token_count=1)
    with pytest.raises(ValueError, match="shape"):
        objectives.response_nll(LOGPROBS, MASK[:, :3])
