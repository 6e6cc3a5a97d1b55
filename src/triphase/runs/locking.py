"""One process works on a run directory: the others are refused, and the lock of a dead one is void."""

import fcntl
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triphase.errors import RunError
from triphase.records.files import disk_errors
from triphase.records.paths import refuse_pipes


@contextmanager
def locked(run: Path, remedy: str) -> Iterator[None]:
    """Lock a run directory for the block.

    Raises:
        RunError: another process has locked it (the message names it and ends with ``remedy``), or a pipe lies in it.
    """
    refuse_pipes(run)
    descriptor = _held(run, remedy)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _held(run: Path, remedy: str) -> int:
    """The acquired lock. With a second name (a copy by hard links) it would lock both runs, so its name is removed."""
    lock = run / ".lock"
    while True:
        with disk_errors(lock):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode(errors="replace").strip()
                raise RunError(f"{run} is held by {holder or 'another process'}; {remedy}") from None
            with disk_errors(lock):
                is_own = _is_own(lock, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if is_own:
            return descriptor
        os.close(descriptor)


def _is_own(lock: Path, descriptor: int) -> bool:
    """Whether the locked file still has this name, and no other; otherwise its name is removed."""
    ours = os.fstat(descriptor)
    try:
        is_named = os.path.samestat(ours, os.lstat(lock))
    except FileNotFoundError:  # another process has released it
        return False
    if is_named and ours.st_nlink > 1:
        lock.unlink()
    return is_named and ours.st_nlink == 1


def is_worked_on(run: Path) -> bool | None:
    """Whether a process works on a run directory; None if another machine may, which cannot be seen from here.

    The check acquires no lock: a run that starts at this very moment must not be refused.
    """
    try:
        found = re.fullmatch(r"process (\d+) on (.+)\n?", (run / ".lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if found is None:
        return False
    if found[2] != platform.node():
        return None
    try:
        os.kill(int(found[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
