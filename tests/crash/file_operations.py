"""Counts the file operations of a process, and makes one of them fail or the last.

Operations: a file is made, a write, an fsync, a rename, a directory made, a name removed, a cut, a commit of SQLite.
What libraries do in their own machine code (the tokenizer's and safetensors' own `save`) is not seen; a kill at a
random moment falls there all the same.
"""

import builtins
import errno
import io
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

OnOperation = Callable[[int, str], None]


class FileOperations:
    """Replaces the operations of `os`, `io` and SQLAlchemy while it is installed.

    Args:
        after: called with the number of an operation (from 1) and its name, once it is done.
        during: called before it is done, with half of a write already in the file.
    """

    def __init__(self, *, after: OnOperation | None = None, during: OnOperation | None = None) -> None:
        self.count = 0
        self.names: list[str] = []
        self._after, self._during = after or _nothing, during or _nothing
        self._unsynced: dict[tuple[int, int], tuple[int, int]] = {}  # inode → a descriptor, bytes that are safe

    @contextmanager
    def installed(self) -> Iterator["FileOperations"]:
        from sqlalchemy import Engine, event

        names = ("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "ftruncate", "truncate")
        wrapped = {name: self._wrapped(name, getattr(os, name)) for name in names}
        wrapped |= {"write": self._os_write(os.write), "fsync": self._fsync(os.fsync)}
        opened = self._open(io.open)
        event.listen(Engine, "commit", self._commit)
        try:
            with (
                mock.patch.multiple(os, **wrapped),
                mock.patch.object(io, "open", opened),
                mock.patch.object(builtins, "open", opened),
            ):
                yield self
        finally:
            event.remove(Engine, "commit", self._commit)

    def lose_what_is_not_synced(self) -> None:
        """What a power cut may take: every byte that was written and never synced."""
        for descriptor, safe in self._unsynced.values():
            os.truncate(descriptor, safe)

    def _begin(self, name: str) -> int:
        self.count += 1
        self.names.append(name)
        return self.count

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            number = self._begin(name)
            self._during(number, name)
            found = function(*arguments, **options)
            self._after(number, name)
            return found

        return operation

    def _os_write(self, function: Callable[..., int]) -> Callable[..., int]:
        def operation(descriptor: int, data: bytes) -> int:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return function(descriptor, data)
            return self.write(descriptor, data, lambda part: function(descriptor, part))

        return operation

    def write(self, descriptor: int, data: Any, do: Callable[[Any], int]) -> int:
        """One write: half, then the hook, then the rest."""
        number = self._begin("write")
        self._note(descriptor)
        view = memoryview(data).cast("B")
        half = do(view[: len(view) // 2])
        self._during(number, "write")
        done = half + do(view[half:])
        self._after(number, "write")
        return done

    def _fsync(self, function: Callable[[int], None]) -> Callable[[int], None]:
        def operation(descriptor: int) -> None:
            number = self._begin("fsync")
            self._during(number, "fsync")
            function(descriptor)
            kept = self._unsynced.pop(_inode(descriptor), None)
            if kept is not None:
                os.close(kept[0])
            self._after(number, "fsync")

        return operation

    def _note(self, descriptor: int) -> None:
        key = _inode(descriptor)
        if key not in self._unsynced:
            self._unsynced[key] = (os.dup(descriptor), os.fstat(descriptor).st_size)

    def _open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def operation(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            **options: Any,
        ) -> Any:
            if not set(mode) & set("wax") or isinstance(file, int) or str(file).startswith("/dev/") or "+" in mode:
                return function(file, mode, buffering, encoding, errors, newline, **options)
            number = self._begin("open")
            self._during(number, "open")
            raw = _Watched(file, mode.replace("b", "").replace("t", ""), self)
            self._after(number, "open")
            if buffering == 0:
                return raw
            buffered = io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

        return operation

    def _commit(self, connection: Any) -> None:
        number = self._begin("commit")
        self._during(number, "commit")


class _Watched(io.FileIO):
    def __init__(self, file: Any, mode: str, operations: FileOperations) -> None:
        super().__init__(file, mode)
        self._operations = operations

    def write(self, data: Any) -> int:
        return self._operations.write(self.fileno(), data, super().write)


def killing(at: int, *, torn: bool, power: bool = False) -> FileOperations:
    """SIGKILL to this process at one operation: after it, or (``torn``) in the middle of it.

    With ``power`` the bytes that were not synced are gone too, as after a power cut.
    """

    def strike(number: int, name: str) -> None:
        if number == at:
            if power:
                operations.lose_what_is_not_synced()
            os.kill(os.getpid(), signal.SIGKILL)

    operations = FileOperations(during=strike) if torn else FileOperations(after=strike, during=_at_commit(strike))
    return operations


def failing(at: int, code: int = errno.ENOSPC, *, lasting: bool = True) -> FileOperations:
    """An `OSError` at one operation that needs disk space (and, if ``lasting``, at all later ones)."""

    def strike(number: int, name: str) -> None:
        needs_room = name in ("open", "write", "fsync", "mkdir")
        if needs_room and (number == at or (lasting and number > at)):
            raise OSError(code, os.strerror(code))

    return FileOperations(during=strike)


def _at_commit(strike: OnOperation) -> OnOperation:
    return lambda number, name: strike(number, name) if name == "commit" else None


def _inode(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _nothing(number: int, name: str) -> None:
    pass
