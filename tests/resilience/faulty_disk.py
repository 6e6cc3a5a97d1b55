"""A disk that refuses an operation on a file, as Python sees it; what machine code of libraries does is not seen."""

import builtins
import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

_ASIDE = re.compile(r"/\.([^/]+)\.[0-9a-f]{8}\.part\b")


def final_name(path: str) -> str:
    """The name that a file written aside will have."""
    return _ASIDE.sub(r"/\1", path)


def _always(*_: Any, **__: Any) -> bool:
    return True


class FaultyDisk:
    """While installed, an operation below ``root`` that ``refuses`` chooses fails with ``code``, and all after it.

    Attributes:
        seen: the operations so far, each its name and the final path relative to the root.
    """

    def __init__(self, root: Path, refuses: Callable[[str, int], bool], code: int = errno.ENOSPC) -> None:
        """``refuses`` is given the path and how many operations that path's file has had before."""
        self.root, self.code = str(root), code
        self.seen: list[tuple[str, str]] = []
        self.full = False
        self._refuses = refuses
        self._counts: dict[str, int] = {}

    def meet(self, name: str, place: Any) -> None:
        """One operation on a path or a descriptor."""
        path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.path.abspath(os.fspath(place))
        if not path.startswith(self.root + "/"):
            return
        inside = final_name(path)[len(self.root) + 1 :]
        before = self._counts.get(inside, 0)
        self._counts[inside] = before + 1
        self.seen.append((name, inside))
        if self.full or self._refuses(inside, before):
            self.full = True
            raise OSError(self.code, os.strerror(self.code), path)

    @contextmanager
    def installed(self) -> Iterator["FaultyDisk"]:
        wrapped = {
            "fsync": self._before("fsync", os.fsync, _is_file),
            "mkdir": self._before("mkdir", os.mkdir),
            "replace": self._before("rename", os.replace, at=1),
            "open": self._before("open", os.open, _creates),
            "write": self._write(os.write),
        }
        opened = self._before("open", io.open, _opens_for_writing)
        with (
            mock.patch.multiple(os, **wrapped),
            mock.patch.object(io, "open", opened),
            mock.patch.object(builtins, "open", opened),
        ):
            yield self

    def _before(
        self, name: str, real: Callable[..., Any], counts: Callable[..., bool] = _always, at: int = 0
    ) -> Callable[..., Any]:
        def operation(*given: Any, **options: Any) -> Any:
            if counts(*given, **options):
                self.meet(name, given[at])
            return real(*given, **options)

        return operation

    def _write(self, real: Callable[[int, Any], int]) -> Callable[[int, Any], int]:
        def write(descriptor: int, data: Any) -> int:
            if not _is_file(descriptor):
                return real(descriptor, data)
            view = memoryview(data).cast("B")
            done = real(descriptor, view[: len(view) // 2])  # a full disk takes the first part
            self.meet("write", descriptor)
            return done + real(descriptor, view[len(view) // 2 :])

        return write


def _creates(_: Any, flags: int, *__: Any, **___: Any) -> bool:
    return bool(flags & os.O_CREAT)


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _opens_for_writing(file: Any, mode: str = "r", *_: Any, **__: Any) -> bool:
    return bool(set(mode) & set("wax")) and not isinstance(file, int)
