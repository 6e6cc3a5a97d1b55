"""sums.json: checksums of a run's files when their phase wrote them, so that no damage goes unnoticed.

A file with a flipped digit can be read; its checksum shows it. Runs of older versions have no checksums, and are not
checked.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from triphase.records.files import fingerprint, write_json

FILE_NAME = "sums.json"
_log = logging.getLogger(__name__)


def seal(run: Path, names: Iterable[str]) -> None:
    """Store the checksums of files (paths inside the run) as they are now; absent ones are left out."""
    kept = _read(run)
    if kept is None:
        _log.warning(
            "%s is damaged and was started anew: damage to files of earlier phases is not detected", run / FILE_NAME
        )
    found = {**(kept or {}), **{name: fingerprint(run / name) for name in names if (run / name).is_file()}}
    if found != kept:
        write_json(run / FILE_NAME, dict(sorted(found.items())))


def seal_phase(run: Path, phase: str) -> None:
    """Store the checksums of a phase's files."""
    folder = run / phase
    names = [f"{phase}/{path.name}" for path in sorted(folder.glob("*.json*"))] if folder.is_dir() else []
    seal(run, [*names, f"{phase}.json"])


def forget(run: Path, names: Iterable[str]) -> None:
    """Remove the checksums of files that were removed on purpose."""
    kept, gone = _read(run), set(names)
    if kept and gone & kept.keys():
        write_json(run / FILE_NAME, {name: value for name, value in sorted(kept.items()) if name not in gone})


def is_changed(run: Path, name: str) -> bool:
    """Whether a file exists and differs from its checksum; False if that is unknown."""
    wanted = (_read(run) or {}).get(name)
    return wanted is not None and (run / name).is_file() and fingerprint(run / name) != wanted


def changes(run: Path) -> list[str]:
    """The files that differ from their checksums, one line each."""
    kept = _read(run)
    if kept is None:
        return [f"{FILE_NAME} is damaged: whether other files are intact is unknown"]
    lines = []
    for name, wanted in sorted(kept.items()):
        if not (run / name).is_file():
            lines.append(f"{name} is missing and is not shown here")
        elif fingerprint(run / name) != wanted:
            lines.append(f"{name} has changed since its phase ended (damaged or edited): numbers from it may be wrong")
    return lines


def _read(run: Path) -> dict[str, str] | None:
    """The checksums by path; empty if there is no file, None if it cannot be used."""
    try:
        found = json.loads((run / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    sound = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    if not sound or any(Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name for name in found):
        return None
    return dict(found)
