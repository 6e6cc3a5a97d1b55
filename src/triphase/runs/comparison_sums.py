"""sums.json of a comparison: checksums of its files when the last call ended, so that no edit goes unnoticed.

Files are only appended to. What a killed call has appended after the recorded bytes is not an edit.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from triphase.monitoring.sums import FILE_NAME
from triphase.records.files import disk_errors, drop_cut_line, write_json
from triphase.rewards.pair_judge import FILE as VERDICTS
from triphase.runs.comparison_responses import RESPONSES
from triphase.runs.judging import SCORES

KEPT = (RESPONSES, SCORES, VERDICTS)
_BLOCK = 1 << 20
Sums = Mapping[str, Mapping[str, Any]]


@contextmanager
def watched(directory: Path) -> Iterator[list[str]]:
    """The files that differ from the last call's, one line each; checksums are recorded when the block ends, in any
    way.

    A file that is reported keeps its checksum: it is reported until it is restored or removed.
    """
    kept, under_way, told = _read(directory / FILE_NAME)
    for path in (directory / name for name in KEPT if under_way or name not in kept):
        if not path.is_symlink():
            drop_cut_line(path)  # else the line would be part of the checksum, which fails once the line is dropped
    changed = [
        name
        for name, one in kept.items()
        if (directory / name).is_file() and not _is_as_left(directory / name, one, grown=under_way)
    ]
    told += [
        f"{directory / name} was changed after the last comparison (damaged or edited): metrics from it may be wrong; "
        "restore it from a copy, or remove it to create it again"
        for name in changed
    ]
    write_json(directory / FILE_NAME, {"under_way": True, "files": dict(kept)})
    try:
        yield told
    finally:
        files = {name: _sum(directory / name) for name in KEPT if name not in changed and (directory / name).is_file()}
        files |= {name: dict(kept[name]) for name in changed if (directory / name).is_file()}
        write_json(directory / FILE_NAME, {"under_way": False, "files": dict(sorted(files.items()))})


def _is_as_left(path: Path, noted: Mapping[str, Any], *, grown: bool) -> bool:
    size = path.stat().st_size
    fits = size >= noted["bytes"] if grown else size == noted["bytes"]
    return bool(fits and _sum(path, noted["bytes"])["sha256"] == noted["sha256"])


def _sum(path: Path, most: int | None = None) -> dict[str, Any]:
    """The size and the SHA-256 checksum of a file, or of its first ``most`` bytes."""
    found, size = hashlib.sha256(), 0
    with disk_errors(path), open(path, "rb") as file:
        while block := file.read(_BLOCK if most is None else min(_BLOCK, most - size)):
            found.update(block)
            size += len(block)
    return {"bytes": size, "sha256": found.hexdigest()}


def _read(path: Path) -> tuple[Sums, bool, list[str]]:
    """The checksums by name, whether the call that recorded them was killed, and a message if they are damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = {name: found["files"][name] for name in KEPT if name in found["files"]}
        if all(type(one["bytes"]) is int and isinstance(one["sha256"], str) for one in files.values()):
            return files, found["under_way"] is True, []
    except FileNotFoundError:
        return {}, False, []
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}, False, [f"{path} is damaged and was started anew: whether files next to it were edited is unknown"]
