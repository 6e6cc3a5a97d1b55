"""Which dtype products are fast in is measured, and threads are as before afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from triphase.models import products
from triphase.models.loading import choose_dtype
from triphase.models.products import multiply, prefers_bfloat16, product_dtype

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    for kept in (products.has_bfloat16, products.prefers_bfloat16):
        kept.cache_clear()
    yield
    for kept in (products.has_bfloat16, products.prefers_bfloat16):
        kept.cache_clear()


@pytest.mark.parametrize(
    ("instructions", "rate", "chosen"),
    [
        (True, 2.3, torch.bfloat16),
        (True, 0.58, torch.float32),
        (True, 1.0, torch.float32),
        (False, 2.3, torch.float32),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, instructions: bool, rate: float, chosen: torch.dtype
) -> None:
    monkeypatch.setattr(products, "has_bfloat16", lambda device: instructions)
    monkeypatch.setattr(products, "_bfloat16_rate", lambda: rate)
    assert choose_dtype("auto", CPU) == chosen
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16
    weight = torch.ones(2, 2, dtype=torch.bfloat16)
    assert product_dtype(weight) == (torch.bfloat16 if chosen == torch.bfloat16 else torch.float32)
    assert product_dtype(weight.float()) == torch.float32


def test_the_choice_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([2.0, 0.5])
    monkeypatch.setattr(products, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(products, "_bfloat16_rate", lambda: next(rates))
    assert prefers_bfloat16("cpu") and prefers_bfloat16("cpu")


def test_the_rate_is_bfloat16_over_float32_and_the_best_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], {torch.float32: 0, torch.bfloat16: 0}

    def linear(x: torch.Tensor, weight: torch.Tensor) -> None:
        calls[x.dtype] += 1
        clock[0] += {torch.float32: 3.0, torch.bfloat16: 1.0}[x.dtype] * (9 if calls[x.dtype] == 1 else 1)

    monkeypatch.setattr("time.thread_time", lambda: clock[0])
    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    assert products._bfloat16_rate() == 3.0


def test_timing_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    assert products._bfloat16_rate() > 0
    assert torch.get_num_threads() == before


def test_a_weight_that_is_widened_gives_the_product_of_its_numbers() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5000, 8).to(torch.bfloat16)
    columns = torch.randn(8, 3)
    assert torch.equal(multiply(weight, columns), weight.float() @ columns)


_SHAPES = """
import ctypes, gc, os, torch
from pathlib import Path
from triphase.models.products import has_bfloat16, multiply
torch.set_num_threads(1)
def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
weight, x = (torch.randn(size, 576, dtype=torch.bfloat16) for size in (1536, 400))
def products(first, last):
    for rows in range(first, last):
        torch.mm(weight, x[:rows].t())
        torch.nn.functional.linear(x[:rows], weight)
products(1, 101)
before = resident()
products(101, 251)
print(resident() - before)
"""


def test_products_of_ever_new_shapes_do_not_fill_the_memory() -> None:
    """oneDNN's caches of code are bounded: 300 new shapes took 200 MB, with instructions for bfloat16."""
    environment = {name: value for name, value in os.environ.items() if "CACHE_CAPACITY" not in name}
    done = subprocess.run([sys.executable, "-c", _SHAPES], capture_output=True, text=True, check=True, env=environment)
    assert float(done.stdout) < 30
