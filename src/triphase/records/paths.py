"""Resolves the name of a data file to a regular file; anything else is recognized before it is opened.

Opening a pipe blocks, a device has no end, and an invalid name is an error of its own type. So the name is looked up
first, and only a regular file is read.
"""

import errno
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from triphase.errors import DataError, RunError

SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".json", ".csv", ".tsv", ".parquet", ".arrow")
PACKED = (".gz", ".zst")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PATTERN = re.compile(r"[*?\[]")
_SPLIT = re.compile(r"(?:^|(?<=[-_.=]))(train|test|valid|validation|val|dev|eval)(?=$|[-_.])", re.I)
_ABOUT = (".md", ".rst", ".py", ".yaml", ".yml", ".png", ".svg", ".pdf", "")
"""Suffixes of files next to data that are about them."""
_SHOWN = 100
_KINDS = (
    (stat.S_ISDIR, "is a directory, not a file"),
    (stat.S_ISFIFO, "is a pipe, which can be read only once; save its output to a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
)
_REASONS = {
    errno.ELOOP: "is a symbolic link to itself; give the file itself",
    errno.ENAMETOOLONG: "the name is longer than the file system allows",
    errno.EACCES: "cannot be read: no permission; change the permissions of the file or of a directory above it",
    errno.ENOTDIR: "a part of this path is a file, not a directory",
}


def is_file_name(text: str, base: Path) -> bool:
    """Whether ``text`` refers to a file rather than a hub data set.

    A path that begins with `/`, `./`, `../` or `~`, or ends in a known suffix, does; so does any existing path.
    """
    if "\0" in text:
        raise DataError(f"{shown(text)}: the path of a data file contains a NUL character")
    if _ADDRESS.match(text):
        raise DataError(
            f"{shown(text)}: addresses are not read; download the file, or name a data set of the hub by its id "
            "(organization/name)"
        )
    if text.startswith(("/", "./", "../", "~")) or text in (".", "..") or format_of(Path(text)) in SUFFIXES:
        return True
    if _PATTERN.search(text):
        return True
    try:
        (base / text).lstat()
    except (OSError, ValueError):
        return False
    return True


def data_files(text: str, base: Path) -> list[Path]:
    """The files that ``text`` refers to: itself, those that match a pattern (``*``, ``?``, ``**``), or all data files
    of a directory and its subdirectories, sorted by name.

    Raises:
        DataError: there are none, or one is not a regular file.
    """
    found = _listed(text, base)
    if found is None:
        return [data_file(text, base)]
    _require_one_split(found, text)
    paths = sorted(Path(name) for name in found if format_of(Path(name)) in SUFFIXES and Path(name).is_file())
    if not paths:
        what = "matches no data file" if _PATTERN.search(text) else "is a directory without data files"
        raise DataError(f"{shown(text)}: {what}; their names end in {', '.join(SUFFIXES)} (.gz or .zst may follow)")
    _require_each_once(paths, text)
    return [data_file(str(path), base) for path in paths]


def other_files(text: str, base: Path) -> list[str]:
    """The names of files in a directory, or of a pattern, that are not read because of their suffix; sorted."""
    found = map(Path, _listed(text, base) or ())
    return sorted(
        path.name
        for path in found
        if format_of(path) not in SUFFIXES and path.suffix.lower() not in _ABOUT and path.is_file()
    )


def _listed(text: str, base: Path) -> list[str] | None:
    """The files, of any kind, of a directory or a pattern; None if ``text`` is neither."""
    try:
        place = base / Path(text).expanduser()
        there, is_directory = os.path.lexists(place), place.is_dir()
    except (OSError, RuntimeError, ValueError):
        return None  # the file's own error gives the reason
    if is_directory:
        return [str(path) for path in _files_below(place) if not _is_hidden(path.relative_to(place))]
    return glob.glob(str(place), recursive=True) if not there and _PATTERN.search(text) else None


def _files_below(place: Path) -> Iterator[Path]:
    """Files of a directory at any depth; only links on the first level are followed, so that none is a loop."""
    for child in place.iterdir():
        if child.is_dir():
            yield from (Path(folder, name) for folder, _, names in os.walk(child) for name in names)
        else:
            yield child


def _require_one_split(names: Sequence[str], text: str) -> None:
    """Refuse a directory or pattern with files of several splits, as the hub names them: all would be trained on.

    Raises:
        DataError: it has some.
    """
    found = dict[str, str]()
    paths = [path for name in sorted(names) if format_of(path := Path(name)) in SUFFIXES]
    folders = {path.parent for path in paths}
    for path in paths:
        for part in (path.name, path.parent.name) if len(folders) > 1 else (path.name,):
            if split := _SPLIT.search(part):
                start = "*" if split.start() else ""
                there = path.parent / f"{start}{split[1]}*" if part == path.name else path.parent
                found.setdefault(split[1], str(there))
                break
    if len(found) > 1:
        example = found.get("train", next(iter(found.values())))
        raise DataError(
            f"{shown(text)}: holds files of several splits ({', '.join(found)}); name those of one, for example "
            f"{shown(example)}"
        )


def _require_each_once(paths: Sequence[Path], text: str) -> None:
    """Refuse a file next to its own compressed copy: each record would count twice.

    Raises:
        DataError: there is one.
    """
    plain = dict[Path, Path]()
    for path in paths:
        unpacked = path.with_suffix("") if path.suffix.lower() in PACKED else path
        other = plain.setdefault(unpacked, path)
        if other != path:
            raise DataError(
                f"{shown(text)}: holds {other.name} and {path.name}, which is one file twice; remove or rename one"
            )


def is_saved_table(path: Path) -> bool:
    """Whether a directory was written by ``Dataset.save_to_disk``."""
    return any(os.path.isfile(path / name) for name in ("dataset_dict.json", "state.json"))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def data_file(text: str, base: Path) -> Path:
    """The regular file that ``text`` refers to, relative paths from ``base``.

    Raises:
        DataError: it is absent, cannot be accessed, or is not a regular file.
    """
    try:
        path = base / Path(text).expanduser()
    except RuntimeError:
        raise DataError(f"{shown(text)}: no such user ({shown(text.split('/')[0])})") from None
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{shown(str(path.absolute()))}: {_absent(path)}") from None
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"cannot be read ({error.strerror or error})")
        raise DataError(f"{shown(str(path.absolute()))}: {reason}") from None
    except ValueError as error:  # half of a surrogate pair, for one
        raise DataError(f"{shown(text)}: is not a valid file name ({error})") from None
    for is_kind, reason in _KINDS:
        if is_kind(mode):
            raise DataError(f"{path.absolute()}: {reason}")
    return path.resolve()


def refuse_pipes(folder: Path) -> None:
    """Refuse a pipe, socket or device in one of our directories: another program created it, and reading may block.

    Raises:
        RunError: there is one.
    """
    for parent, _, files in os.walk(folder):
        for name in files:
            path = Path(parent, name)
            with suppress(OSError):  # a broken symlink, which is reported by whatever reads it
                if not stat.S_ISREG(path.stat().st_mode):
                    raise RunError(f"{path}: is a pipe, a socket or a device, not a regular file; remove it")


def refuse_links(folder: Path) -> None:
    """Refuse a symlink inside a run: it would redirect writes to another location.

    Raises:
        RunError: there is one.
    """
    for parent, directories, files in os.walk(folder):
        for name in (*directories, *files):
            path = Path(parent, name)
            if path.is_symlink():
                raise RunError(
                    f"{path}: is a symbolic link, which is never written through; replace it by "
                    f"its target, or remove it"
                )


def format_of(path: Path) -> str:
    """The suffix that names the format: ``.jsonl`` of ``a.jsonl.gz`` and of ``a.jsonl.zst``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in PACKED else (suffixes or [""])[-1]


def display_name(given: str, path: Path) -> str:
    """The name of a file in errors: relative to the working directory if it is inside, else as given."""
    try:
        return shown(str(path.relative_to(Path.cwd())))
    except ValueError:
        return shown(given)


def shown(text: str) -> str:
    """A name on one line: without control characters, and of limited length."""
    clean = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "�", text)
    return clean if len(clean) <= 2 * _SHOWN else f"{clean[:_SHOWN]}…{clean[-_SHOWN:]}"


def _absent(path: Path) -> str:
    if path.is_symlink():
        return "is a symbolic link to a file that is not there"
    return "there is no such file"
