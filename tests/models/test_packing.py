"""Packed weights give the products and the tokens that plain ones give, and are made only where they are faster."""

from collections.abc import Sequence

import pytest
import torch
from tests.small import shared_model, stir
from torch import Tensor, nn

from triphase.demo.tiny import tiny_directory
from triphase.models import products
from triphase.models.direct import FastDecoder
from triphase.models.loading import load_model
from triphase.models.lora import LoraLinear
from triphase.models.packing import can_pack, multiply_packed, pack
from triphase.models.products import FusedLinear, packs
from triphase.models.roles import POLICY, SharedModel
from triphase.models.tracing import Meter
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.schema import AdapterSettings, ModelSettings

CPU = torch.device("cpu")
needs_kernels = pytest.mark.skipif(not can_pack("cpu"), reason="this processor has no kernels for bfloat16")


@pytest.fixture(autouse=True)
def fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "prefers_bfloat16", lambda device: True)


def exact(rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return torch.cat([rows.double() @ weight.double().t() for weight in weights], dim=1)


@needs_kernels
@pytest.mark.parametrize("sizes", [(5,), (48,), (16, 7, 7), (96, 96)])
@pytest.mark.parametrize("width", [1, 7, 32, 100])
def test_a_packed_product_is_that_of_the_weights_for_every_number_of_rows(sizes: tuple[int, ...], width: int) -> None:
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(size, width, generator=draw).bfloat16() for size in sizes]
    packed = pack(weights)
    for count in (1, 2, 7, 32, 33, 300):
        rows = torch.randn(count, width, generator=draw).bfloat16()
        spread = torch.zeros(count, 2 * width, dtype=torch.bfloat16)[:, ::2].copy_(rows)  # not contiguous
        for given in (rows, spread):
            found = multiply_packed(given, packed)
            assert found.dtype == torch.bfloat16 and found.shape == (count, sum(sizes))
            allowed = 2**-8 * exact(rows.abs(), [weight.abs() for weight in weights])
            assert bool(((found.double() - exact(rows, weights)).abs() <= allowed).all())


def maps(*, bias: bool) -> list[nn.Module]:
    """Three maps of one input; the first and the last are adapted."""
    torch.manual_seed(0)
    made: list[nn.Module] = []
    for number, size in enumerate((16, 8, 24)):
        base = nn.Linear(32, size, bias=bias and number != 2).to(torch.bfloat16).requires_grad_(False)
        if number == 1:
            made.append(base)
            continue
        module = LoraLinear(base, rank=2 + number, alpha=2.0)
        module.add(POLICY, torch.Generator().manual_seed(number), CPU)
        module.lora_b[POLICY].data.normal_()
        module.active = POLICY
        made.append(module)
    return made


@needs_kernels
@pytest.mark.parametrize("bias", [False, True])
def test_joint_maps_add_biases_and_updates_to_the_packed_product(bias: bool) -> None:
    modules = maps(bias=bias)
    packed, plain = FusedLinear(modules, packed=True), FusedLinear(modules)
    for count in (1, 5, 64):
        columns = torch.randn(32, count).bfloat16()
        found, expected = packed(columns), plain(columns)
        assert found.shape == expected.shape == (48, count)
        assert torch.allclose(found, expected, rtol=2**-7, atol=2**-6)
    for module in (modules[0], modules[2]):
        module.lora_b[POLICY].data.mul_(-1.0)
    packed.refresh()
    assert torch.equal(packed(columns), FusedLinear(modules, packed=True)(columns))
    plain.refresh()
    bare = FusedLinear(modules[1:2], packed=True)
    assert torch.allclose(bare(columns), plain(columns)[16:24], rtol=2**-7, atol=2**-6)


@needs_kernels
def test_packed_weights_sample_the_same_tokens() -> None:
    shared = shared_model("llama", dtype=torch.bfloat16, hidden_size=64, intermediate_size=96)
    stir(shared, POLICY)
    requests = [Request(tuple(range(6, 8 + number % 5)), number) for number in range(24)]
    answers = []
    for packed in (False, True):
        shared.backbone.packed_decoding = packed
        generator = LocalGenerator(shared, adapter=POLICY, batch_size=8)
        answers.append(generator.generate(requests, temperature=1.0, max_response_tokens=12))
    assert answers[0] == answers[1]


def test_they_are_made_where_they_are_asked_for_and_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(products, "can_pack", lambda device: device == "cpu")
    monkeypatch.setattr(products, "pack", lambda weights: made.append(len(weights)))
    narrow = shared_model("llama", dtype=torch.bfloat16)
    assert not narrow.backbone.packed_decoding  # unless the settings say so
    FastDecoder(narrow.backbone)
    assert made == []
    narrow.backbone.packed_decoding = True
    FastDecoder(narrow.backbone)
    assert made == [3, 1, 2, 1] * 4
    made.clear()
    wide = shared_model("llama")
    wide.backbone.packed_decoding = True
    FastDecoder(wide.backbone)
    assert made == [] and not packs(torch.bfloat16, "cuda")
    monkeypatch.setattr(products, "prefers_bfloat16", lambda device: False)
    FastDecoder(narrow.backbone)
    assert made == []


@pytest.mark.parametrize("packed", [True, False])
def test_the_setting_reaches_the_decoder(packed: bool) -> None:
    settings = ModelSettings(name=str(tiny_directory() / "model"), packed_decoding=packed)
    assert SharedModel(load_model(settings), AdapterSettings(layers=1), seed=0).backbone.packed_decoding is packed


@needs_kernels
def test_a_meter_counts_packed_weights_and_their_products() -> None:
    weights = [torch.ones(16, 32).bfloat16(), torch.ones(8, 32).bfloat16()]
    rows = torch.ones(5, 32).bfloat16()
    with Meter() as meter:
        packed = pack(weights[:1])
        assert meter.now == 2 * 16 * 32
        product = multiply_packed(rows, packed)
        assert meter.flops == 2 * 5 * 32 * 16 and meter.now == 2 * 16 * 32 + 2 * 5 * 16
        del packed, product
        assert meter.now == 0
        pack(weights)
        assert meter.now == 0 and meter.peak >= 2 * 24 * 32
