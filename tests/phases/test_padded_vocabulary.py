"""Rows of the embedding that are no token: never sampled, no probability anywhere, and the first ratio is 1."""

import math

import pytest
import torch
from tests.phases.test_ppo import phase, rolled_out, settings
from tests.small import SPECIAL, WORDS, samples, shared_model, stir, tokenizer

from triphase.batches.padding import pad_batch
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.objectives.logprobs import response_logprobs
from triphase.phases.minibatch import accumulate_gradients
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request

TOKENS = len(SPECIAL) + len(WORDS)


def padded(*, hole: bool = False) -> SharedModel:
    """A model with eight rows more than tokens, all of them likely; with a ``hole``, one in the middle too."""
    made = tokenizer()
    if hole:
        whole = made.get_vocab()
        made.get_vocab = lambda: {token: id_ for token, id_ in whole.items() if id_ != 9}
    shared = shared_model(vocab_size=TOKENS + 8, made=made)
    with torch.no_grad():
        shared.backbone.head_weight[TOKENS:] *= 4
        shared.backbone.head_weight[9] *= 4 if hole else 1
    for number, adapter in enumerate((REFERENCE, POLICY, REWARD)):
        stir(shared, adapter, seed=number)
    return shared


def absent_of(hole: bool) -> list[int]:
    return [*([9] if hole else []), *range(TOKENS, TOKENS + 8)]


def test_every_row_of_an_ordinary_model_is_a_token() -> None:
    assert shared_model().absent is None


@pytest.mark.parametrize("hole", [False, True])
def test_no_row_without_a_token_is_sampled(hole: bool) -> None:
    shared = padded(hole=hole)
    assert shared.absent.tolist() == absent_of(hole)
    asked = [Request(made.prompt, seed=number) for number, made in enumerate(samples(40))]
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=16)
    found = generator.generate(asked, temperature=2.0, max_response_tokens=12)
    assert not {token for answer in found for token in answer.ids} & set(absent_of(hole))
    shared.absent = None  # as it was
    found = generator.generate(asked, temperature=2.0, max_response_tokens=12)
    assert {token for answer in found for token in answer.ids} & set(absent_of(hole))


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("hole", [False, True])
def test_they_have_no_probability_in_training_either(hole: bool, temperature: float) -> None:
    shared = padded(hole=hole)
    batch = pad_batch(samples(5), pad_id=0)
    there = [token for token in range(TOKENS + 8) if token not in absent_of(hole)]
    with shared.role(POLICY), torch.no_grad():
        logits = shared.backbone.model(input_ids=batch.input_ids).logits[..., there] / temperature
    plain = logits.log_softmax(-1)
    places = torch.tensor(
        [there.index(int(token)) if int(token) in there else 0 for token in batch.responses.flatten()]
    )
    expected = plain.gather(1, batch.response_positions[:, :, None].expand(-1, -1, len(there)) - 1)
    picked = expected.gather(2, places.view(*batch.responses.shape, 1))[..., 0]
    entropies = -(expected.exp() * expected).sum(-1)
    known = batch.response_mask & torch.isin(batch.responses, torch.tensor(there))
    with torch.no_grad():
        found = shared.policy_output(
            batch, shared.trunk(batch), adapter=POLICY, temperature=temperature, with_entropy=True
        )
    assert torch.allclose(found.logprobs[known], picked[known], atol=1e-4)
    assert torch.allclose(found.entropy[batch.response_mask], entropies[batch.response_mask], atol=1e-4)


def test_all_three_ways_to_the_log_probability_agree_in_number_and_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 5, generator=draw, dtype=torch.float64)
    targets, absent = torch.tensor([0, 3, 7]), torch.tensor([4, 10, 11])
    options = {"temperature": 0.8, "chunk_size": 2, "with_entropy": True, "absent": absent}
    numbers, gradients = [], []
    for trained in (False, True):
        hidden = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        found = response_logprobs(hidden, weight.clone().requires_grad_(trained), targets, **options)
        (found.logprobs.sum() + 0.3 * found.entropy.sum()).backward()
        numbers.append((found.logprobs.detach(), found.entropy.detach()))
        gradients.append(hidden.grad)
    with torch.no_grad():
        plain = response_logprobs(hidden, weight, targets, **options)
    assert torch.equal(plain.logprobs, numbers[0][0]) and torch.equal(plain.entropy, numbers[0][1])
    assert all(torch.allclose(*pair) for pair in (*zip(*numbers, strict=True), gradients))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            plain.logprobs, response_logprobs(hidden, weight, targets, **{**options, "absent": None}).logprobs
        )


def test_the_first_ratio_of_ppo_is_exactly_1() -> None:
    shared = padded()
    ppo = phase(settings(), shared=shared)
    _, found, advantages = rolled_out(ppo)
    minibatch = found.minibatches[0]
    figures = accumulate_gradients(ppo.policy, minibatch, found, advantages, ppo.settings, first=True)
    assert figures["ppo/approximate_kl"] == 0.0
    assert math.isfinite(float(found.entropy.sum()))
