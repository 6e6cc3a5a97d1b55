"""Ranks other than 0, in this process alone: what they report when they cannot continue."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs.small_run import settings

from triphase.errors import RunError
from triphase.runs import worker_ranks
from triphase.runs.session import Run
from triphase.training.distributed.environment import RANKS
from triphase.training.distributed.types import ALONE


@pytest.mark.parametrize("variant", [None, "other"])
def test_a_rank_without_memory_names_its_phase_and_what_to_lower(
    variant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def starved(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    chosen = settings(tmp_path)
    (tmp_path / "runs" / "small" / RANKS).mkdir(parents=True)
    monkeypatch.setattr(worker_ranks, "_ppo", starved)
    monkeypatch.setattr(Run, "next_shared_phase", lambda run: ("ppo", variant))
    with pytest.raises(RunError, match=r"^ppo: not enough memory \(.*; lower ppo\.microbatch_tokens"):
        worker_ranks.follow(chosen, ALONE)
    last = capsys.readouterr().err.splitlines()[-1]  # which is in the rank's log
    assert "worker_ranks ppo: not enough memory" in last and "lower ppo.microbatch_tokens" in last
