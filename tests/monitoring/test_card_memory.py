"""The memory of a GPU, with which the plan of a run on one is compared, on a simulated one."""

from pathlib import Path

import pytest
import torch
from tests.runs.small_run import settings, write_data

from triphase.errors import RunError
from triphase.monitoring.memory import memory_errors, restart_peak
from triphase.runs.directory import RunDirectory


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A card of 80 GB on which this process had 500 GB of tensors at once: more than any process has elsewhere."""
    stats = {"allocation.all.allocated": 7, "peak": 500_000_000_000}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: stats)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: stats["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: stats.update(peak=1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 80_000_000_000))
    return stats


def test_the_peak_of_a_phase_is_that_of_the_card_that_is_planned(tmp_path: Path, card: dict[str, int]) -> None:
    write_data(tmp_path)
    with RunDirectory(settings(tmp_path)).held() as directory, directory.timed("ppo"):
        assert card["peak"] == 1  # what an earlier phase had does not count
        card["peak"] = 300_000_000_000
    assert directory.timings()["peaks_gb"] == {"ppo": 300.0}


def test_without_tensors_on_the_card_it_is_that_of_the_process(tmp_path: Path, card: dict[str, int]) -> None:
    card["allocation.all.allocated"] = 0
    write_data(tmp_path)
    with RunDirectory(settings(tmp_path)).held() as directory, directory.timed("ppo"):
        pass
    assert directory.timings()["peaks_gb"]["ppo"] < 100
    restart_peak()
    assert card["peak"] == 500_000_000_000


def test_a_card_without_room_is_described_and_not_the_process(card: dict[str, int]) -> None:
    wanted = r"^ppo: not enough memory \(500\.0 GB peak use of 80\.0 GB on the GPU\); lower ppo\.microbatch_tokens"
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        with pytest.raises(RunError, match=wanted), memory_errors("ppo"):
            raise error
    with pytest.raises(RunError, match="allowed or available"), memory_errors("ppo"):
        raise MemoryError
