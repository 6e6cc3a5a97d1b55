"""The file summary.json, with a checksum: damage and edits are detected before a value of it is shown."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.records.files import write_json

FILE_NAME = "summary.json"
SUM = "sha256"
"""The key of the checksum: the SHA-256 of all other keys as JSON in sorted order."""


def keep_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the figures with their checksum, whole or not at all."""
    write_json(path, {**summary, SUM: _sum(summary)})


def read_summary(path: Path) -> dict[str, Any]:
    """The values of an undamaged file.

    Raises:
        RunError: the file cannot be read, was changed, or has no checksum, as those of older versions.
    """
    again = f"`triphase report {shlex.quote(str(path.parent))}` writes it again"
    if not path.is_file():  # a pipe would be waited for
        raise RunError(f"{path} is not a regular file; remove it, and {again}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged; {again}")
    wanted = found.pop(SUM, None)
    if wanted is None:
        raise RunError(f"{path} has no checksum: it was written by an older version, or edited; {again}")
    if wanted != _sum(found):
        raise RunError(f"{path} was changed after it was written (damaged or edited); {again}")
    return found


def _sum(summary: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(summary, sort_keys=True).encode()).hexdigest()
