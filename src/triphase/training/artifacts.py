"""The artifacts of a run's phases: where they are, whether they are intact, and which settings made them.

The only file that knows these paths, and through which such a directory is written and read. Its manifest has the
checksum of each file and the fingerprint of the settings that its phase read; that of an older version has no
fingerprint, and can still be opened. Starts without torch.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.records.files import fingerprint, make_directory, write_json
from triphase.training.sealed import MANIFEST, find_damage, read_manifest, rewrite, sealed_directory

TAKEN = "taken.json"
SAMPLED, RANKED = "sampling.json", "labelling.json"
"""The numbers of samples and rankings when the step ended."""
_NAME = "final"
_ASIDE = f"{_NAME}-before-"
_MADE_BY = "settings_sha256"
_log = logging.getLogger(__name__)


def name_of(phase: str) -> str:
    """The path of a phase's artifact, relative to the run directory."""
    return f"{phase}/{_NAME}"


def place_of(run: Path, phase: str) -> Path:
    """The directory of a phase's artifact, or of the one that replaces it (`note_taken`)."""
    taken = taken_of(run, phase)
    return run / name_of(phase) if taken is None else taken.directory(run / phase)


@dataclass(frozen=True, slots=True)
class Taken:
    """The artifact of another run that replaces that of a phase.

    Attributes:
        origin: its name in the settings.
        place: the directory; a relative one is relative to that of the phase.
        manifest: the checksum of its manifest, which has the checksums of its files.
        shared: whether a branch shares it with its source run, and no setting names it.
    """

    origin: str
    place: str
    manifest: str
    shared: bool = False

    def directory(self, phase: Path) -> Path:
        """The directory, where ``phase`` is the directory of the phase that it replaces.

        If the source run was extended since, the shared artifact is where that run has set it aside.
        """
        place = Path(os.path.normpath(phase / self.place))
        asides = sorted(place.parent.glob(f"{_ASIDE}*")) if self.shared else []
        return next((aside for aside in asides if self._is(aside)), place)

    def _is(self, directory: Path) -> bool:
        manifest = directory / MANIFEST
        return manifest.is_file() and fingerprint(manifest) == self.manifest


def taken_of(run: Path, phase: str) -> Taken | None:
    """The replacement of a phase's artifact; None if the run has its own.

    Raises:
        RunError: the note about it is damaged.
    """
    path = run / phase / TAKEN
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, value in found.items():
            if type(value) is not (bool if name == "shared" else str):
                raise TypeError(f"{name} is {str(value)[:40]!r}")
        return Taken(**found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); remove it, and run the same command again") from None


def note_taken(run: Path, phase: str, taken: Taken | None) -> None:
    """Record ``taken`` as the replacement of a phase's artifact, by reference; None removes the reference."""
    if taken is None:
        (run / phase / TAKEN).unlink(missing_ok=True)
    elif taken_of(run, phase) != taken:
        make_directory(run / phase)
        write_json(run / phase / TAKEN, asdict(taken))


def set_aside(run: Path, phase: str) -> Path | None:
    """Set a phase's artifact aside. Returns its new path; None if there was none."""
    final, number = run / name_of(phase), 1
    if not final.is_dir():
        return None
    while (aside := final.with_name(f"{_ASIDE}{number}")).exists():
        number += 1
    final.rename(aside)
    return aside


def has_trained(run: Path, phase: str) -> bool:
    """Whether a phase was finished by training in this run."""
    return (run / name_of(phase)).is_dir()


def is_place(directory: Path) -> bool:
    """Whether a directory has the name of an artifact."""
    return directory.name == _NAME


def has_left(run: Path, phase: str) -> bool:
    """Whether a phase is finished; its artifact may be damaged."""
    return place_of(run, phase).is_dir()


def runs_around(directory: Path) -> tuple[Path, ...]:
    """The directories that could be the run in which a phase, or a variant, wrote ``directory``."""
    return tuple(directory.resolve().parents[1:3])


def damage_of(directory: Path) -> str | None:
    """The damage of a phase's artifact; None if it is intact."""
    return find_damage(directory)


def has_manifest(directory: Path) -> bool:
    """Whether a phase wrote it; a directory of another origin has no manifest."""
    return (directory / MANIFEST).is_file()


def sum_of(directory: Path) -> str:
    """The SHA-256 checksum of its manifest, which has the checksums of its files."""
    return fingerprint(directory / MANIFEST)


def is_whole(directory: Path) -> bool:
    """Whether a phase's artifact exists and is undamaged."""
    return directory.is_dir() and find_damage(directory) is None


def is_usable(directory: Path) -> bool:
    """`is_whole`, with a warning if it exists and is damaged: its phase will make it again."""
    if not directory.is_dir():
        return False
    problem = find_damage(directory)
    if problem is not None:
        _log.warning("%s is damaged (%s) and is not used; `triphase run` computes it again", directory, problem)
    return problem is None


@contextmanager
def written(directory: Path, made_by: str | None) -> Iterator[Path]:
    """A directory to fill that replaces ``directory`` at the end, all or nothing, with the checksum of each file.

    ``made_by`` is the fingerprint of the settings; None if no phase of a run wrote it.

    Raises:
        RunError: the disk is full or cannot be written; the previous contents stay.
    """
    with sealed_directory(directory, **({} if made_by is None else {_MADE_BY: made_by})) as folder:
        yield folder


def write(directory: Path, files: Mapping[str, bytes], made_by: str | None) -> None:
    """Write files into a directory through `written`."""
    with written(directory, made_by) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)


def rewrite_text(directory: Path, name: str, text: str) -> None:
    """Replace one file of such a directory, with its checksum.

    Raises:
        RunError: the disk is full or cannot be written.
    """
    rewrite(directory, name, text)


def read(directory: Path, name: str) -> bytes:
    """A file of a phase's artifact.

    Raises:
        RunError: it is missing or damaged.
    """
    problem = find_damage(directory)
    if problem is not None:
        raise RunError(f"{directory} cannot be used: {problem}; remove it and run its phase again")
    return (directory / name).read_bytes()


def made_by(directory: Path) -> str | None:
    """The fingerprint of the settings that made it; None if it is from a version that kept none."""
    found = read_manifest(directory).get(_MADE_BY)
    return found if isinstance(found, str) else None


def fingerprint_of(settings: Mapping[str, Any]) -> str:
    """The fingerprint of settings by their dotted names: the same for the same values, in any order.

    Of an absolute path only the last name counts: a copied or moved run directory keeps its fingerprint.
    """
    plain = json.dumps(_without_places(settings), sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def _without_places(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(each) for each in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value
