"""Freed memory goes back to the system before the peak of the next phase is counted."""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs.small_run import settings

from triphase.monitoring import memory
from triphase.runs.directory import RunDirectory

PIECES, NUMBERS = 2000, 16_000
GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def scatter() -> tuple[list[torch.Tensor], float]:
    """Allocate 128 MB in pieces that the C library keeps once they are freed; returns what remains, and the peak."""
    pieces = [torch.ones(NUMBERS) for _ in range(PIECES)]
    held = memory.resident_bytes()
    return [*pieces[::50], pieces[-1]], held


@pytest.mark.skipif(not GLIBC, reason="only glibc keeps freed pieces, and can be told to give them back")
def test_freed_pieces_are_given_back() -> None:
    stays, held = scatter()
    memory.give_back()
    assert held - memory.resident_bytes() > 0.8 * PIECES * NUMBERS * 4
    assert all(float(piece[0]) == 1 for piece in stays)


@pytest.mark.skipif(not GLIBC, reason="only glibc keeps freed pieces, and can be told to give them back")
def test_the_peak_of_a_phase_is_without_what_the_one_before_has_freed(tmp_path: Path) -> None:
    with RunDirectory(settings(tmp_path)).held() as directory:
        memory.give_back()
        before = memory.resident_bytes()
        with directory.timed("sampling"):
            stays, _ = scatter()
        with directory.timed("evaluation"):
            assert len(stays) == PIECES // 50 + 1
        peaks = directory.timings()["peaks_gb"]
    freed = PIECES * NUMBERS * 4 / 1e9
    assert peaks["sampling"] > before / 1e9 + 0.9 * freed
    assert peaks["evaluation"] < peaks["sampling"] - 0.8 * freed


class Bare:
    """A C library without the function."""


def no_library(*_: Any) -> Any:
    raise OSError("no library")


@pytest.mark.parametrize("library", [lambda *_: Bare(), no_library])
def test_without_glibc_nothing_happens(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", library)
    memory.give_back()
    assert memory.restart_peak() > 0


def test_code_that_phases_load_on_their_way_is_loaded_beforehand() -> None:
    program = """
import torch
from triphase.monitoring.memory import give_back, resident_bytes
from triphase.planning.warm_up import load_code
load_code(); give_back(); before = resident_bytes()
torch.optim.AdamW([torch.nn.Parameter(torch.ones(4))]); give_back()
print(resident_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 5e6
