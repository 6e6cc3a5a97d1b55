"""Files that are complete or absent: atomic writes, append-only lines of JSON, fingerprints.

Every failure of the disk becomes a ``RunError`` that names the path and the remedy.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from triphase.errors import RunError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space, then run the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space, then run the same command again",
    errno.EFBIG: "the file size limit is reached (ulimit -f); raise it, then run the same command again",
    errno.EROFS: "the file system is read-only; choose another directory with `output`",
    errno.EACCES: "no permission to write here; choose another directory with `output`, or change the permissions",
    errno.EPERM: "no permission to write here; choose another directory with `output`, or change the permissions",
    errno.ENOTDIR: "a part of this path is a file, not a directory; choose another directory with `output`",
    errno.EISDIR: "is a directory, not a file; move it away",
    errno.ELOOP: "is a symbolic link, which is never written through; move it away",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter `name`",
}
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.(?:part|old)")
_BLOCK = 1 << 16


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate an ``OSError`` of the block into a ``RunError`` on ``path``."""
    try:
        yield
    except OSError as error:
        reason = _REMEDIES.get(error.errno or 0, f"cannot be written ({error.strerror or error})")
        raise RunError(f"{path}: {reason}") from error


def make_directory(path: Path) -> Path:
    """Create the directory ``path`` and its parents if they are absent."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that replaces ``path`` when the block succeeds, and is removed otherwise.

    The bytes are on the disk before the name is, so that a reader finds the old file or the new one, never a part.
    """
    make_directory(path.parent)
    with disk_errors(path):
        aside = aside_of(path)
        try:
            with open(aside, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise
        _sync_directory(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``path``, whole or not at all."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all. A number that is not finite is a ``ValueError``."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """An empty directory to fill that replaces ``path`` when the block succeeds, and is removed otherwise.

    An older ``path`` is moved away only after every file of the new one is on the disk.
    """
    make_directory(path.parent)
    with disk_errors(path):
        aside = aside_of(path)
        aside.mkdir()
        try:
            yield aside
            _sync_tree(aside)
            if path.exists():
                old = aside.with_suffix(".old")
                os.replace(path, old)
                os.replace(aside, path)
                shutil.rmtree(old)
            else:
                os.replace(aside, path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _sync_directory(path.parent)


def remove_directory(path: Path) -> None:
    """Remove a directory: it exists completely, or its name is gone."""
    with disk_errors(path):
        aside = aside_of(path).with_suffix(".old")
        os.replace(path, aside)
        shutil.rmtree(aside)


def clear_leftovers(directory: Path) -> list[Path]:
    """Remove what killed processes left next to the files they wrote, anywhere under ``directory``."""
    found = [path for path in sorted(directory.rglob(".*")) if _LEFTOVER.fullmatch(path.name)]
    with disk_errors(directory):
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return found


def unshare(path: Path) -> None:
    """Give a file that is modified in place its own copy of the content.

    Under a second name (a hard link, as ``cp -al`` and many backups make them) the other file would change too.
    """
    with suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            with open(path, "rb") as file, atomic_file(path) as own:
                shutil.copyfileobj(file, own)


def append_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append records to a file of JSON lines, all or none. A number that is not finite is a ``ValueError``.

    A last line that was cut by a crash is removed first.
    """
    lines = _json_lines(records)
    with disk_errors(path):
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        unshare(path)
        drop_cut_line(path)
        with open(path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(lines) != len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(path, size)
                raise


def drop_cut_line(path: Path) -> None:
    """Remove a last line that has no newline: a crash cut it. A file that is absent stays absent."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            os.truncate(path, end)


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON lines, whole or not at all."""
    write_atomically(path, _json_lines(records))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file that ``append_json_lines`` wrote; empty if the file is absent.

    A last line without its newline was cut by a crash and is left out; any other damage is an error.
    """
    with suppress(FileNotFoundError):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        records = []
        for number, line in enumerate(whole.split(b"\n") if whole else (), start=1):
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError):
                raise RunError(f"{path}:{number}: damaged line; restore the file, or remove the line") from None
        return records
    return []


def fingerprint(path: Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal.

    Raises:
        RunError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error}); check it and its permissions") from error


def _json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(
        (json.dumps(dict(record), ensure_ascii=False, allow_nan=False) + "\n").encode() for record in records
    )


def aside_of(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(directory: Path) -> None:
    for root, _, names in os.walk(directory):
        for name in names:
            with open(Path(root, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_directory(Path(root))
