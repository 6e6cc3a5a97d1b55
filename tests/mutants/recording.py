"""Which lines of the mutated folders each test executes, and how long it takes, as pytest runs a file.

A fixture that several tests share is executed in the first of them and decides about all: its lines count for each.
What another process executes is not seen: a test that starts one counts as executing every line.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

PROCESSES = {"os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen"}
_SHARED = "fixture "


class Recorder:
    """A plugin of pytest.

    Attributes:
        seconds: of each test, by its id. starts_processes: the tests that do.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.seconds: dict[str, float] = {}
        self.starts_processes: set[str] = set()
        self._sharing: dict[str, list[str]] = {}
        self._coverage = coverage.Coverage(data_file=None, include=[f"{folder}/*" for folder in folders])
        self._running = ""
        sys.addaudithook(self._audit)

    def start(self) -> None:
        """Before the project is imported."""
        self._coverage.start()

    def write(self, path: Path) -> None:
        """The tests, each with its seconds, the lines that it executes by file, and whether it starts processes."""
        self._coverage.stop()
        lines: dict[str, dict[str, set[int]]] = {name: {} for name in self.seconds}
        data = self._coverage.get_data()
        for file in data.measured_files():
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    for name in self._sharing.get(context, [context]):
                        if name in lines:
                            lines[name].setdefault(file, set()).add(line)
        found = {
            name: {
                "seconds": self.seconds[name],
                "starts_processes": name in self.starts_processes,
                "lines": {file: sorted(each) for file, each in lines[name].items()},
            }
            for name in self.seconds
        }
        path.write_text(json.dumps(found), encoding="utf-8")

    def _audit(self, event: str, _: Any) -> None:
        if event in PROCESSES:
            self.starts_processes.update(self._sharing.get(self._running, [self._running]))

    def _switch(self, context: str) -> None:
        self._running = context
        self._coverage.switch_context(context)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            fixtures = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009
            for definitions in fixtures.values():
                self._sharing.setdefault(_name(definitions[-1]), []).append(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = time.monotonic()
        self._switch(item.nodeid)
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.monotonic() - start

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before = self._running
        if fixturedef.scope != "function":
            self._switch(_name(fixturedef))
        try:
            return (yield)
        finally:
            self._switch(before)


def _name(fixture: Any) -> str:
    return f"{_SHARED}{fixture.baseid} {fixture.argname}"
