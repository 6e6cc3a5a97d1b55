"""Seconds of a phase: the operations of its method divided by this machine's rate of multiplications.

    seconds = Σ_kind  operations(kind) / (rate(kind) · efficiency(kind))

The rate is measured here on products of the model's own shapes. The efficiencies are the shares of it that remain in
training, in plain forward passes and in decoding, after norms, attention, memory traffic and Python. They were
calibrated on embedded:smollm2 with two CPU threads (docs/performance.md); elsewhere they are a guess.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

EFFICIENCY = {"training": 0.75, "forward": 0.75, "decoding": 0.75}
_SECONDS = 0.4
_WIDE = 1024


@dataclass(frozen=True, slots=True)
class Rates:
    """Floating-point operations per second of products with many rows, and with those of a decoding batch."""

    wide: float
    narrow: float

    def seconds(self, flops: Mapping[str, float]) -> float:
        """The time of operations by kind."""
        rate = {"training": self.wide, "forward": self.wide, "decoding": self.narrow}
        return sum(count / (rate[kind] * EFFICIENCY[kind]) for kind, count in flops.items())


def measure_rates(config: Any, dtype: Any, device: Any, *, rows: int) -> Rates:
    """Multiply for about a second."""
    text = config.get_text_config()
    width = int(text.hidden_size)
    inner = int(getattr(text, "intermediate_size", None) or 4 * width)
    return Rates(_rate(_WIDE, width, inner, dtype, device), _rate(rows, width, inner, dtype, device))


def _rate(rows: int, width: int, inner: int, dtype: Any, device: Any) -> float:
    x = torch.ones(rows, width, dtype=dtype, device=device)
    # Several weights, so that they are read from memory and not from the CPU's cache, as in a model.
    weights = [torch.ones(inner, width, dtype=dtype, device=device) for _ in range(8)]

    def work(seconds: float) -> float:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for weight in weights:
                torch.nn.functional.linear(x, weight)
            count += len(weights)
            if device.type == "cuda":
                torch.cuda.synchronize()
        return count / (time.perf_counter() - start)

    work(_SECONDS / 4)
    return work(_SECONDS) * 2.0 * rows * width * inner
