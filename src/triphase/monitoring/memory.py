"""Out-of-memory errors become one line: what was used, what is available, and which setting to lower."""

import ctypes
import gc
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from triphase.errors import RunError, is_out_of_memory
from triphase.settings.phase_names import section_of

LOWER = {
    "sft": "sft.microbatch_tokens (changes rounding at most), or set model.recompute_activations: true; or, in a new "
    "run, sft.method: lora",
    "sampling": "sampling.batch_size (changes rounding at most)",
    "reward": "reward.microbatch_tokens (changes rounding at most), or set model.recompute_activations: true",
    "ppo": "ppo.microbatch_tokens (changes rounding at most), or set model.recompute_activations: true; or, in a "
    "branch, ppo.batch_size, ppo.max_response_tokens or ppo.method: lora",
    "evaluation": "sampling.batch_size and ppo.microbatch_tokens (both change rounding at most)",
}
_UNLIMITED = resource.RLIM_INFINITY


@contextmanager
def memory_errors(phase: str, planned: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Translate a failed allocation of the block (on the CPU or on a GPU) into a `RunError`.

    ``planned`` says what the phase needs and which settings to lower, as far as that can still be determined.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # releases the tensors that they hold before the plan is made
        advice = planned()
        setting = LOWER.get(section_of(phase), "the sizes of the batches")
        is_of_card = type(error).__name__ == "OutOfMemoryError" or "CUDA" in str(error)
        figures = (_card_figures() if is_of_card else None) or memory_figures()
        raise RunError(
            f"{phase}: not enough memory ({figures}); {advice or f'lower {setting}'}; finished work is kept"
        ) from error


def memory_figures() -> str:
    """The peak memory of this process, and its limit."""
    peak = peak_gb()
    limit = available_gb()
    return f"{peak:.1f} GB peak use" + ("" if limit is None else f", {limit:.1f} GB allowed or available")


def _card_figures() -> str | None:
    """The same of the GPU; None if nothing was allocated on one."""
    peak = card_peak_gb()
    return None if peak is None else f"{peak:.1f} GB peak use of {_cuda().mem_get_info()[1] / 1e9:.1f} GB on the GPU"


def _cuda() -> Any:
    torch = sys.modules.get("torch")  # without the import nothing is allocated on a GPU
    return None if torch is None or not torch.cuda.is_available() else torch.cuda


def resident_bytes() -> int:
    """The current memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Return freed memory to the system, if the C library is glibc, and to the GPU; elsewhere nothing happens.

    glibc keeps freed pieces that are not at the end of its heap. What one phase has freed would count in the next.
    """
    gc.collect()
    cuda = _cuda()
    if cuda is not None:
        cuda.empty_cache()
    # Other C libraries have no such function, and some systems no library to load.
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def restart_peak() -> float:
    """The peak of this process so far, in GB; freed memory is returned, and the peaks restart from there.

    If the system does not allow that, the peak since the start is used.
    """
    peak = peak_gb()
    give_back()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if card_peak_gb() is not None:
        _cuda().reset_peak_memory_stats()
    return peak


def peak_gb() -> float:
    """The peak memory of this process since its start, or since `restart_peak`, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def card_peak_gb() -> float | None:
    """The peak of this process's tensors on its GPU, since its start or `restart_peak`; None if it never had any."""
    cuda = _cuda()
    if cuda is None or not cuda.memory_stats().get("allocation.all.allocated"):
        return None
    return float(cuda.max_memory_allocated()) / 1e9


def available_gb() -> float | None:
    """The memory limit of this process, in GB: the machine's memory, its control group's limit, or its own."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(path).read_text()) / 1e9)
        except (OSError, ValueError):
            continue
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != _UNLIMITED:
        found.append(limit / 1e9)
    return min(found)
