"""The cache for generated files: the user's cache directory, or TRIPHASE_CACHE."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from triphase.errors import RunError


def _unusable(place: Path, error: Exception) -> RunError:
    cause = getattr(error, "strerror", None) or error
    return RunError(f"{place} cannot be created or written to ({cause}); set TRIPHASE_CACHE to a writable directory")


def cache_of(name: str) -> Path:
    """The path of the directory ``name`` in the cache, existing or not.

    Raises:
        RunError: there is no home directory.
    """
    root = Path(os.environ.get("TRIPHASE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "triphase")
    try:
        return root.expanduser() / name
    except RuntimeError as error:  # there is no home directory
        raise _unusable(root, error) from error


def cached_directory(name: str, make: Callable[[Path], None]) -> Path:
    """The directory ``name`` of the cache; ``make`` fills a new one, which is renamed into place when complete."""
    target = cache_of(name)
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    except OSError as error:
        raise _unusable(target.parent, error) from error
    try:
        make(aside)
        aside.chmod(0o755)
        try:
            os.rename(aside, target)
        except OSError:
            # Another process was faster; its result is the same.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target
