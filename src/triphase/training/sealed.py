"""Directories that exist as a whole or not at all, with a manifest of the SHA-256 checksum of each file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from triphase.records.files import atomic_directory, fingerprint, write_atomically

MANIFEST = "manifest.json"


@contextmanager
def sealed_directory(target: Path, **facts: Any) -> Iterator[Path]:
    """A directory to fill that replaces ``target`` at the end, all or nothing, with a manifest of its checksums.

    Raises:
        RunError: the disk is full or cannot be written; the previous contents stay.
    """
    with atomic_directory(target) as aside:
        yield aside
        paths = sorted(path for path in aside.rglob("*") if path.is_file())
        sums = {str(path.relative_to(aside)): fingerprint(path) for path in paths}
        manifest = json.dumps({**facts, "sha256": sums}, indent=1, sort_keys=True)
        (aside / MANIFEST).write_text(manifest, encoding="utf-8")
        mode = (
            (aside / MANIFEST).stat().st_mode
        )  # by the umask; some libraries write files that only the owner can read
        for path in paths:
            path.chmod(mode)


def rewrite(path: Path, name: str, text: str) -> None:
    """Replace one file of a sealed directory, and its checksum in the manifest.

    Raises:
        RunError: the disk is full or cannot be written.
    """
    write_atomically(path / name, text)
    manifest = read_manifest(path)
    manifest["sha256"][name] = fingerprint(path / name)
    write_atomically(path / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))


def write_directory(target: Path, files: Mapping[str, bytes], **facts: Any) -> None:
    """Write files into a `sealed_directory`."""
    with sealed_directory(target, **facts) as aside:
        for name, content in files.items():
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).write_bytes(content)


def find_damage(path: Path) -> str | None:
    """The damage of a directory that `write_directory` wrote; None if it is intact."""
    try:
        manifest = read_manifest(path)
        if not manifest["sha256"]:
            return f"{MANIFEST} lists no file"
        for name, expected in manifest["sha256"].items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                return f"{MANIFEST} lists {name}, which is outside"
            if not (path / name).is_file():
                return f"{name} is missing"
            if fingerprint(path / name) != expected:
                return f"the checksum of {name} differs"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return None


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an intact directory."""
    return dict(json.loads((path / MANIFEST).read_text(encoding="utf-8")))
