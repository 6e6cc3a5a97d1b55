"""The norm in one kernel is the module's own, where it is taken for it."""

from typing import Any

import pytest
import torch
from tests.small import random_model

from triphase.models.norms import OneKernel, is_root_mean_square, norm_of


def norm(kind: str) -> Any:
    module = random_model(kind).get_decoder().layers[0].input_layernorm
    with torch.no_grad():
        module.weight.copy_(torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(0)))
    return module


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_it_is_the_modules_own(kind: str, dtype: torch.dtype, off: float) -> None:
    module = norm(kind).to(dtype)
    assert is_root_mean_square(module)
    x = 3.0 * torch.randn(7, len(module.weight), generator=torch.Generator().manual_seed(1)).to(dtype)
    own, one = module(x), OneKernel(module)(x)
    assert one.dtype == own.dtype
    assert torch.allclose(one.float(), own.float(), rtol=off, atol=off)
    with torch.no_grad():
        module.weight.mul_(2.0)  # as training does
    assert torch.allclose(OneKernel(module)(x).float(), 2.0 * one.float(), rtol=off, atol=off)


def test_another_dtype_than_the_weights_is_left_to_the_module() -> None:
    module = norm("llama").to(torch.bfloat16)
    x = torch.randn(3, len(module.weight))
    assert torch.equal(OneKernel(module)(x), module(x))


@pytest.mark.parametrize("kind", ["gemma", "gpt_neox"])
def test_a_norm_of_another_kind_is_not_taken_for_it(kind: str) -> None:
    assert not is_root_mean_square(norm(kind))


def test_on_a_processor_the_module_itself_runs() -> None:
    module = norm("llama")
    assert norm_of(module) is module
