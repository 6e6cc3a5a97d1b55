"""The trunk states that sampling records are those of the forward pass that trains."""

from typing import Any

import pytest
import torch
from tests.small import samples, shared_model, stir

from triphase.batches.padding import pad_batch
from triphase.models.direct import FastDecoder
from triphase.models.roles import POLICY, SharedModel
from triphase.phases.experience import open_rollout
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Generated, Request
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded

END, LIMIT = 1, 12


def made(kind: str = "llama", **config: object) -> SharedModel:
    shared = shared_model(kind, **config)
    stir(shared, POLICY)
    with torch.no_grad():  # ends come early, so rows leave on the way
        shared.backbone.head_weight[END] *= 3
    return shared


def requests(count: int) -> list[Request]:
    return [Request(each.prompt, seed=100 + number) for number, each in enumerate(samples(count, prompt=(1, 9)))]


def sampled(shared: SharedModel, asked: list[Request], batch_size: int) -> tuple[list[Generated], torch.Tensor | None]:
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=batch_size)
    return generator.generate_with_trunk(asked, temperature=1.0, max_response_tokens=LIMIT)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_states_are_those_of_the_forward_pass(batch_size: int) -> None:
    shared, asked = made(), [*requests(9), *requests(2)]
    found, trunk = sampled(shared, asked, batch_size)
    assert trunk is not None
    assert {answer.finished for answer in found} == {True, False}
    for request, answer, states in zip(asked, found, trunk, strict=True):
        row = Encoded(request.prompt, answer.ids)
        with torch.no_grad():
            own = shared.trunk(pad_batch([row], pad_id=0, device=shared.device))[0]
        torch.testing.assert_close(states[: len(own)], own, atol=1e-5, rtol=1e-5)
        assert not states[len(own) :].any()


def test_the_responses_are_the_same_as_without_them() -> None:
    shared, asked = made(), requests(11)
    found, _ = sampled(shared, asked, 4)
    plain = LocalGenerator(shared, adapter=POLICY, batch_size=4)
    assert found == plain.generate(asked, temperature=1.0, max_response_tokens=LIMIT)


@pytest.mark.parametrize(("kind", "config"), [("mistral", {"sliding_window": 4}), ("llama", {"adapted": "all"})])
def test_where_they_are_not_at_hand_there_are_none(kind: str, config: dict[str, Any]) -> None:
    shared = made(kind, **config)
    assert not (shared.backbone.trunk_layers and isinstance(shared.stepper(POLICY), FastDecoder))
    found, trunk = sampled(shared, requests(3), 2)
    assert (len(found), trunk) == (3, None)


@pytest.mark.parametrize("times", [1, 3])
def test_a_rollout_has_the_recorded_states_where_its_own_pass_would_have_put_them(times: int) -> None:
    shared = made()
    prompts = [request.prompt for request in requests(4) for _ in range(times)]
    asked = [Request(prompt, seed=number) for number, prompt in enumerate(prompts)]
    found, trunk = sampled(shared, asked, 5)
    answers = [Encoded(request.prompt, answer.ids) for request, answer in zip(asked, found, strict=True)]
    sizes = {"batch_size": 4 * times, "minibatch_size": 2 * times, "responses_per_prompt": times}
    chosen = PPOSettings.model_validate({"max_response_tokens": LIMIT, **sizes})
    own = open_rollout(shared, answers, chosen, seed=0, iteration=1)
    recorded = open_rollout(shared, answers, chosen, seed=0, iteration=1, trunk=trunk)
    for (numbers, part, states), (theirs, _, expected) in zip(recorded.parts(), own.parts(), strict=True):
        assert numbers == theirs
        for row, length in enumerate(part.lengths.tolist()):
            torch.testing.assert_close(states[row, :length], expected[row, :length], atol=1e-5, rtol=1e-5)
