"""Resolves a model's name to a local directory or a hub id. A misspelled path is reported as one."""

import difflib
import re
import stat
from contextlib import suppress
from pathlib import Path

from triphase.errors import ModelError, first_line_of
from triphase.records.hub import bound_hub

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_LONGEST_HUB_ID = 96
_MODEL_FILES = ("config.json", "adapter_config.json", "config.yaml")
_FETCHED = ("*.json", "*.safetensors", "*.jinja", "tokenizer*", "vocab*", "merges.txt", "README.md")
_SHOWN = 5


def directory_of(name: str) -> Path | None:
    """The directory that ``name`` refers to; None for a hub id.

    Raises:
        ModelError: it is neither; the message suggests similar names nearby.
    """
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            _refuse_pipes(path)
            return path
        if path.is_file():
            raise ModelError(f"model.name: {name} is a file; give its directory")
        if path.is_symlink():
            raise ModelError(f"model.name: {name} is a broken link; give a directory or a hub id")
    except (OSError, RuntimeError, ValueError) as error:  # a symlink loop, an unknown user, a NUL, a name too long
        why = getattr(error, "strerror", None) or error
        raise ModelError(
            f"model.name: {name[:80]!r} cannot be accessed ({why}); give a directory or a hub id"
        ) from None
    if is_hub_id(name) and not _holds_models(path.parent):
        return None
    raise ModelError(f"model.name: there is no directory {name}{_nearby(path)}; give a directory or a hub id")


def _refuse_pipes(directory: Path) -> None:
    """Refuse a pipe or device in place of a file: reading it would block or never end.

    Raises:
        ModelError: there is one.
    """
    for path in directory.iterdir():
        with suppress(OSError):  # a broken symlink, which is reported by whatever reads it
            mode = path.stat().st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                raise ModelError(f"model.name: {path}: is a pipe or a device, not a regular file; remove it")


def fetched(name: str) -> Path:
    """The directory of a hub id, of an adapter or of a phase's artifact; it is downloaded if it is not cached.

    Raises:
        ModelError: it cannot be downloaded.
    """
    try:
        from huggingface_hub import snapshot_download

        bound_hub()
        return Path(snapshot_download(name, allow_patterns=list(_FETCHED)))
    except ImportError as error:
        raise ModelError(f"model.name: {error.name} is not installed; run: pip install 'triphase[train]'") from None
    except Exception as error:
        text = first_line_of(error)
        raise ModelError(
            f"model.name: there is no directory {name}, and it cannot be downloaded as a hub id ({text}); check the "
            "spelling, or the network"
        ) from error


def is_hub_id(name: str) -> bool:
    """Whether a model's name could be a hub id."""
    return len(name) <= _LONGEST_HUB_ID and bool(_HUB_ID.fullmatch(name)) and "--" not in name and ".." not in name


def _holds_models(parent: Path) -> bool:
    """Whether ``owner/name`` is a path next to local models or runs, and not a hub id."""
    return parent != Path() and any(_is_model(child) for child in _children(parent))


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in _MODEL_FILES)


def _children(path: Path) -> list[Path]:
    try:
        return sorted(child for child in path.iterdir() if child.is_dir())
    except OSError:
        return []


def _nearby(path: Path) -> str:
    """A suggestion: the first missing part of the path, and the names that exist there."""
    missing = path
    while not missing.parent.exists() and missing != missing.parent:
        missing = missing.parent
    found = [child.name for child in _children(missing.parent)]
    close = difflib.get_close_matches(missing.name, found, n=1)
    if close:
        return f"; did you mean {missing.parent / close[0]}?"
    where = "the working directory" if missing.parent == Path() else str(missing.parent)
    shown = ", ".join(found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
    return f" ({where} holds {shown})" if found else f" ({where} holds no directory)"
