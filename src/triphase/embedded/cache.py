"""Where what is made once is kept: the user's cache directory, or TRIPHASE_CACHE."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cached_directory(name: str, make: Callable[[Path], None]) -> Path:
    """The directory ``name`` of the cache; ``make`` fills a new one, which is renamed into place when it is whole."""
    root = Path(os.environ.get("TRIPHASE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "triphase")
    target = root.expanduser() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        make(aside)
        aside.chmod(0o755)
        try:
            os.rename(aside, target)
        except OSError:
            # Another process was faster; what it made is the same.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target
