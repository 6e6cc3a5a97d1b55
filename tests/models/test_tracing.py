"""What is traced without data is what happens with data: bytes, kept bytes and operations."""

import pytest
import torch
from tests.small import random_model

from triphase.models.adapters import Adapters
from triphase.models.backbone import Backbone
from triphase.models.tracing import Meter, Skeleton, Traced, extrapolated, with_depth

KINDS = ("llama", "qwen3", "gemma3_text")


def backbones(kind: str, depth: int, recompute: bool = False) -> tuple[Skeleton, Backbone]:
    """A model without data, and the same one with data."""
    model = random_model(kind, layers=depth)
    options = {"rank": 4, "targets": "all-linear"}
    skeleton = Skeleton(model.config, torch.float32, depth=depth, recompute=recompute, trusted=False, **options)
    backbone = Backbone(model, adapted_layers=None, recompute_activations=recompute)
    adapters = Adapters(backbone, alpha=4, seed=0, **options)
    adapters.add("traced")
    adapters.train_only("traced")
    adapters.activate("traced")
    return skeleton, backbone


def update(backbone: Backbone, rows: int, length: int) -> torch.Tensor:
    return backbone.upper(torch.ones(rows, length, backbone.hidden_size)).sum()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_without_data_is_the_trace_with_data(kind: str, recompute: bool) -> None:
    skeleton, backbone = backbones(kind, 3, recompute)
    skeleton.train(adapter=True)
    found = skeleton.trace(lambda: update(skeleton.backbone, 3, 16), backward=True, again=True)
    update(backbone, 3, 16).backward()
    with Meter() as meter:
        loss = update(backbone, 3, 16)
        kept, _ = meter.now, loss.backward()
    assert found.peak == pytest.approx(meter.peak, rel=0.02)
    assert found.kept == pytest.approx(kept, rel=0.02)
    assert found.flops == pytest.approx(meter.flops)
    assert meter.now < 0.05 * meter.peak


def test_layers_beyond_those_traced_follow() -> None:
    found = []
    for depth in (2, 3, 7):
        skeleton, _ = backbones("llama", depth)
        skeleton.train(adapter=True)
        found.append(skeleton.trace(lambda part=skeleton: update(part.backbone, 2, 12), backward=True))
    followed = extrapolated(found[0], found[1], 7)
    assert followed.kept == pytest.approx(found[2].kept, rel=1e-6)
    assert followed.peak == pytest.approx(found[2].peak, rel=0.02)
    assert followed.flops == pytest.approx(found[2].flops)


def test_products_are_counted_by_hand() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    with Meter() as meter:
        product = a @ b
        assert (meter.now, meter.peak) == (3 * 7 * 4, 3 * 7 * 4)
        del product
        assert (meter.now, meter.peak) == (0, 3 * 7 * 4)
        torch.nn.functional.linear(a, b.t())
    assert meter.flops == 2 * 2 * 3 * 5 * 7


def test_what_was_there_before_is_not_counted() -> None:
    weight = torch.ones(100, 100)
    with Meter() as meter:
        view = weight.t()
        view.add_(1)
    assert meter.peak == 0


def test_the_top_layers_of_a_configuration() -> None:
    config = random_model("gemma3_text", layers=6).config
    cut = with_depth(config, 2)
    assert (cut.num_hidden_layers, cut.layer_types) == (2, config.layer_types[-2:])
    assert config.num_hidden_layers == 6
    assert Traced(2, 1, 3) + Traced(1, 1, 1) * 2 == Traced(4, 3, 5)


def test_a_model_of_fewer_layers_than_are_traced_repeats_their_kinds() -> None:
    from transformers import AutoConfig

    sizes = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"], "vocab_size": 20, "hidden_size": 32}
    assert with_depth(AutoConfig.for_model("lfm2", **sizes), 3).layer_types == [
        "full_attention", "conv", "full_attention",
    ]  # fmt: skip
    assert with_depth(AutoConfig.for_model("mamba", num_hidden_layers=2), 3).num_hidden_layers == 3
