"""Outputs of the shared model compared with plain transformers: log-probabilities, entropies, values, scores."""

import pytest
import torch
from tests.small import Encoded, samples, shared_model, stir

from triphase.batches.padding import TokenBatch, pad_batch
from triphase.batches.sharing import packed_length, pad_groups
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.tokens.encoding import EncodedGroup

MADE = samples(6)
KINDS = ["llama", "qwen2", "qwen3", "mistral", "gemma"]


def prepared(kind: str = "llama", **options: object) -> SharedModel:
    shared = shared_model(kind, **options)
    for number, adapter in enumerate((REFERENCE, POLICY, REWARD)):
        stir(shared, adapter, seed=number)
    with torch.no_grad():
        for head in (shared.value_head, shared.score_head):
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    return shared


def output(shared: SharedModel, batch: TokenBatch, adapter: str | None = POLICY, temperature: float = 1.0, **options):
    with torch.no_grad():
        return shared.policy_output(batch, shared.trunk(batch), adapter=adapter, temperature=temperature, **options)


@torch.no_grad()
def plain(shared: SharedModel, sample: Encoded, adapter: str | None):
    """Logits before each response token, and all final hidden states, by the model's own forward pass."""
    ids = torch.tensor([[*sample.prompt, *sample.response]])
    with shared.role(adapter):
        found = shared.backbone.model(input_ids=ids, use_cache=False, output_hidden_states=True)
    first = len(sample.prompt) - 1
    return found.logits[0, first:-1], found.hidden_states[-1][0]


@pytest.mark.parametrize("adapter", [None, REFERENCE, POLICY])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_and_entropy_are_those_of_the_plain_model(kind: str, temperature: float, adapter: str | None) -> None:
    shared = prepared(kind)
    found = output(shared, pad_batch(MADE, pad_id=0), adapter, temperature, with_entropy=True)
    for row, sample in enumerate(MADE):
        expected = (plain(shared, sample, adapter)[0] / temperature).log_softmax(-1)
        length = len(sample.response)
        picked = expected.gather(1, torch.tensor(sample.response)[:, None])[:, 0]
        assert torch.allclose(found.logprobs[row, :length], picked, rtol=0, atol=1e-5)
        entropy = torch.distributions.Categorical(logits=expected).entropy()
        assert torch.allclose(found.entropy[row, :length], entropy, rtol=0, atol=1e-5)
        assert not found.logprobs[row, length:].any() and not found.entropy[row, length:].any()


def test_the_critic_judges_the_state_before_each_token() -> None:
    shared = prepared()
    found = output(shared, pad_batch(MADE, pad_id=0), with_values=True)
    head = shared.value_head.linear
    for row, sample in enumerate(MADE):
        first, length = len(sample.prompt) - 1, len(sample.response)
        states = plain(shared, sample, POLICY)[1][first : first + length]
        assert torch.allclose(found.values[row, :length], (states @ head.weight[0]) + head.bias, rtol=0, atol=1e-5)
        assert not found.values[row, length:].any()


def test_the_score_is_read_at_the_last_real_token() -> None:
    shared = prepared()
    batch = pad_batch(MADE, pad_id=0)
    with torch.no_grad():
        scores = shared.scores(batch, shared.trunk(batch))
    head = shared.score_head.linear
    for row, sample in enumerate(MADE):
        state = plain(shared, sample, REWARD)[1][-1]
        assert float(scores[row]) == pytest.approx(float((state @ head.weight[0] + head.bias).detach()), abs=1e-5)


def test_roles_differ_and_none_is_the_bare_base() -> None:
    shared = prepared()
    batch = pad_batch(MADE, pad_id=0)
    found = [output(shared, batch, adapter).logprobs for adapter in (None, REFERENCE, POLICY)]
    assert all(not torch.allclose(found[a], found[b], atol=0.01) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("pad_id", [1, 5])
def test_what_the_pads_hold_changes_nothing(pad_id: int) -> None:
    shared = prepared()
    batches = [pad_batch(MADE, pad_id=which) for which in (0, pad_id)]
    first, second = (output(shared, batch, with_entropy=True, with_values=True) for batch in batches)
    assert torch.equal(first.logprobs, second.logprobs)
    assert torch.equal(first.entropy, second.entropy)
    assert torch.equal(first.values, second.values)
    with torch.no_grad():
        assert torch.equal(*(shared.scores(batch, shared.trunk(batch)) for batch in batches))


@pytest.mark.parametrize("kind", KINDS)
def test_neighbors_change_nothing_but_rounding(kind: str) -> None:
    shared = prepared(kind)
    batch = pad_batch(MADE, pad_id=0)
    together = output(shared, batch, with_values=True)
    with torch.no_grad():
        scores = shared.scores(batch, shared.trunk(batch))
    for row, sample in enumerate(MADE):
        one = pad_batch([sample], pad_id=0)
        alone, length = output(shared, one, with_values=True), len(sample.response)
        assert torch.allclose(together.logprobs[row, :length], alone.logprobs[0], rtol=1e-5, atol=1e-5)
        assert torch.allclose(together.values[row, :length], alone.values[0], rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            assert float(scores[row]) == pytest.approx(float(shared.scores(one, shared.trunk(one))), rel=1e-5, abs=1e-5)


def test_gradients_and_no_gradients_give_the_same_bits() -> None:
    shared = prepared()
    shared.adapters.train_only(POLICY)
    batch = pad_batch(MADE, pad_id=0)
    rollout = output(shared, batch, with_entropy=True, with_values=True)
    update = shared.policy_output(batch, shared.trunk(batch), adapter=POLICY, temperature=1.0, with_values=True)
    assert torch.equal(update.logprobs, rollout.logprobs)
    assert torch.equal(update.values, rollout.values)
    assert update.logprobs.requires_grad and update.entropy is None


def test_full_fine_tuning_runs_the_whole_model_with_every_weight_in_the_graph() -> None:
    shared = prepared()
    batch = pad_batch(MADE, pad_id=0)
    expected = output(shared, batch, None).logprobs
    shared.backbone.model.requires_grad_(True)
    shared.adapters.train_only(None)
    found = shared.policy_output(batch, None, adapter=None, temperature=1.0)
    assert torch.allclose(found.logprobs, expected, rtol=0, atol=1e-5)
    found.logprobs.sum().backward()
    named = dict(shared.backbone.model.named_parameters())
    assert all(parameter.grad is not None for name, parameter in named.items() if "lora_" not in name)
    assert all(parameter.grad is None for name, parameter in named.items() if "lora_" in name)


# Ranked responses behind one prompt

GROUPS = [
    EncodedGroup(MADE[0].prompt, tuple(sample.response for sample in MADE[:4])),
    EncodedGroup(MADE[4].prompt, (MADE[4].response,)),
    EncodedGroup(MADE[5].prompt, (MADE[5].response, MADE[1].response)),
]
FLAT = [Encoded(group.prompt, response) for group in GROUPS for response in group.responses]


@pytest.mark.parametrize("kind", KINDS)
def test_responses_behind_one_prompt_score_as_in_rows_of_their_own(kind: str) -> None:
    shared = prepared(kind, **({"sliding_window": None} if kind == "mistral" else {}))
    assert shared.backbone.packs
    packed, apart = pad_groups(GROUPS, pad_id=0), pad_batch(FLAT, pad_id=0)
    with torch.no_grad():
        found = shared.scores(packed, shared.trunk(packed))
        expected = shared.scores(apart, shared.trunk(apart))
    assert found.shape == (7,)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


def test_a_response_does_not_depend_on_those_beside_it_nor_on_padding() -> None:
    shared = prepared()
    swapped = [EncodedGroup(GROUPS[0].prompt, tuple(reversed(GROUPS[0].responses))), *GROUPS[1:]]
    with torch.no_grad():
        first, second = (
            shared.scores(batch, shared.trunk(batch))
            for batch in (pad_groups(GROUPS, pad_id=0), pad_groups(swapped, pad_id=9))
        )
    assert torch.allclose(first[:4], second[:4].flip(0), rtol=0, atol=1e-5)
    assert torch.allclose(first[4:], second[4:], rtol=0, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(
            *(
                shared.scores(batch, shared.trunk(batch))
                for batch in (pad_groups(GROUPS, pad_id=0), pad_groups(GROUPS, pad_id=9))
            )
        )


def test_gradients_of_packed_scores_are_those_of_single_rows() -> None:
    found = []
    for packed in (True, False):
        shared = prepared()
        shared.adapters.train_only(REWARD)
        batch = pad_groups(GROUPS, pad_id=0) if packed else pad_batch(FLAT, pad_id=0)
        (shared.scores(batch, shared.trunk(batch)) * torch.arange(1.0, 8.0)).sum().backward()
        found.append({name: value.grad for name, value in shared.adapters.parameters(REWARD).items()})
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-4, atol=1e-5 * float(gradient.abs().max()) + 1e-7)


def test_a_packed_length_counts_the_prompt_once() -> None:
    assert packed_length(GROUPS[0]) == len(GROUPS[0].prompt) + sum(len(response) for response in GROUPS[0].responses)
