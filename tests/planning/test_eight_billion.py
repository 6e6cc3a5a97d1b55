"""An 8 B decoder in 4 bits, with off-load, is planned to fit a card of 24 GB in every phase."""

from typing import Any

import pytest
import torch
from tests.planning.llama import llama_8b
from torch import Tensor

from triphase.footprints.cost import CostModel
from triphase.footprints.moments import ADAPTERS, BASE, Moment
from triphase.footprints.work import Work
from triphase.footprints.workload import Lengths, Workload
from triphase.models import quantization
from triphase.planning.every_phase import footprints_of
from triphase.settings.schema import RunSettings


class OfTheSizeOfNF4:
    """As many bytes as bitsandbytes stores; `tests/quantization` has the library itself."""

    def packed(self, weight: Tensor) -> dict[str, Tensor]:
        count = weight.numel()
        return {
            "codes": torch.empty(count // 2, 1, dtype=torch.uint8),
            "scales": torch.empty(count // 64),
            "levels": torch.empty(16),
        }

    def widened(self, kept: dict[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)


@pytest.mark.slow  # layers of that size are traced, which takes seconds
def test_every_phase_fits_24_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_packing_of", lambda kind: OfTheSizeOfNF4())
    config = llama_8b()
    adapters = {"layers": 11}
    plain = RunSettings.model_validate(
        {"name": "q", "model": {"name": "x", "quantization": "nf4"}, "data": {}, "adapters": adapters}
    )
    work = Work(
        config, torch.bfloat16, plain.adapters, recompute=False, trusted=False, quantization="nf4", on_card=True
    )
    shown, prompts = Lengths([(128, 128)] * 64, 64), Lengths([(128,)] * 64, 64)
    load = Workload(shown, shown, 192, prompts, prompts, Lengths([(128, 128, 128)] * 64, 64))
    offloaded = plain.model_copy(update={"model": plain.model.model_copy(update={"offload": True})})
    peaks: list[dict[str, float]] = []
    updates: list[Moment] = []
    for settings in (plain, offloaded):
        found = footprints_of(CostModel(settings, work, load, process_bytes=0.0))
        peaks.append({each.phase: each.peak.total for each in found})
        ppo = next(each for each in found if each.phase == "ppo")
        updates += [moment for moment in ppo.moments if moment.name == "update"]
    assert {"sft", "reward", "ppo"} <= set(peaks[1])
    assert all(size < 0.9 * 24e9 for size in peaks[1].values())
    assert all(peaks[1][phase] <= size for phase, size in peaks[0].items())
    # In the updates of PPO the 21 layers of the trunk and two adapters rest: 218 M weights of 4.5 bits each.
    parts: list[Any] = [moment.parts for moment in updates]
    assert parts[0][BASE] - parts[1][BASE] == pytest.approx(21 * 218.1e6 * 4.5 / 8, rel=0.01)
    assert parts[0][ADAPTERS] - parts[1][ADAPTERS] == 2 * 4 * work.adapter_numbers
