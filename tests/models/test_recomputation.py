"""Layers that run again in the backward pass: the same numbers and gradients to the bit, with less kept."""

import pytest
import torch
from tests.small import random_model, samples, tokenizer

from triphase.batches.padding import pad_batch
from triphase.models.loading import LoadedModel
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.settings.schema import AdapterSettings


def shared_model(kind: str, recompute: bool, adapted: int | str = 2) -> SharedModel:
    loaded = LoadedModel(random_model(kind), tokenizer(), "small", recompute_activations=recompute)
    shared = SharedModel(loaded, AdapterSettings(layers=adapted, rank=4), seed=0)
    for place, name in enumerate((REFERENCE, POLICY, REWARD)):
        shared.adapters.add(name)
        random = torch.Generator().manual_seed(place)
        with torch.no_grad():
            for parameter in shared.adapters.parameters(name).values():
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    return shared


def gradients(shared: SharedModel) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """The loss, the policy's gradients, and the bytes that the backward pass was kept waiting with."""
    shared.adapters.train_only(POLICY)
    batch = pad_batch(samples(6), pad_id=0)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = shared.policy_output(
            batch, shared.trunk(batch), adapter=POLICY, temperature=1.0, with_entropy=True, with_values=True
        )
    loss = output.logprobs.sum() + output.values.sum() + output.entropy.sum()
    assert shared.adapters.active is None
    loss.backward()
    assert shared.adapters.active is None
    return loss, {name: value.grad for name, value in shared.adapters.parameters(POLICY).items()}, sum(kept.values())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3_text", "smollm3"])
@pytest.mark.parametrize("adapted", [2, "all"])
def test_gradients_are_the_same_to_the_bit(kind: str, adapted: int | str) -> None:
    loss, expected, kept = gradients(shared_model(kind, False, adapted))
    again, found, kept_then = gradients(shared_model(kind, True, adapted))
    assert torch.equal(again, loss)
    assert expected.keys() == found.keys() and any(float(value.abs().max()) > 0 for value in found.values())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert kept_then < kept / 2


def test_the_scores_gradient_is_the_same_with_another_adapter_at_work_in_between() -> None:
    found = []
    for recompute in (False, True):
        shared = shared_model("llama", recompute)
        shared.adapters.train_only(REWARD)
        batch = pad_batch(samples(5), pad_id=0)
        scores = shared.scores(batch, shared.trunk(batch))
        shared.adapters.activate(POLICY)
        scores.square().sum().backward()
        assert shared.adapters.active == POLICY
        found.append([value.grad for value in shared.adapters.parameters(REWARD).values()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_full_fine_tuning_gets_the_same_gradients() -> None:
    found = []
    for recompute in (False, True):
        shared = shared_model("qwen2", recompute, "all")
        shared.backbone.model.requires_grad_(True)
        batch = pad_batch(samples(5), pad_id=0)
        shared.policy_output(batch, None, adapter=None, temperature=1.0).logprobs.sum().backward()
        grads = [value.grad for name, value in shared.backbone.model.named_parameters() if "lora" not in name]
        assert all(value is not None for value in grads)
        found.append(grads)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
