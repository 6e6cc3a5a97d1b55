"""A process that has imported the libraries and nothing of the project: each run of pytest is forked from it.

``python -m tests.mutants.warm LIBRARY…`` reads one run a line, as JSON: the files, the ids of the tests in the order in
which they run, the seconds that it may take, and, where lines are to be recorded, the folders and the file for it. It
answers with pytest's exit code, or null where it did not end in time.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = ("torch", "transformers", "peft", "hypothesis", "pydantic", "sqlalchemy", "numpy", "safetensors.torch",
             "transformers.models.llama.modeling_llama", "yaml", "torch._subclasses.fake_tensor")  # fmt: skip

_IMPORTED = "Module already imported"


class Chosen:
    """A plugin of pytest: the tests with these ids, in this order.

    A fault may change the ids of tests that are made of what it changes: where one is missing, its whole file runs.
    """

    def __init__(self, names: list[str]) -> None:
        self._order = {name: number for number, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        missing = {name.split("::")[0] for name in self._order.keys() - {item.nodeid for item in items}}
        items[:] = [item for item in items if item.nodeid in self._order or item.nodeid.split("::")[0] in missing]
        items.sort(key=lambda item: self._order.get(item.nodeid, len(self._order)))


def _run(asked: dict[str, Any]) -> int:
    plugins: list[Any] = [Chosen(asked["names"])] if asked["names"] else []
    recorder = None
    if asked.get("record"):
        from tests.mutants.recording import Recorder

        recorder = Recorder([Path(folder) for folder in asked["folders"]])
        recorder.start()
        plugins.append(recorder)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-W", f"ignore:{_IMPORTED}:pytest.PytestAssertRewriteWarning"]
    code = int(pytest.main([*options, *asked["files"]], plugins=plugins))
    if recorder is not None:
        recorder.write(Path(asked["record"]))
    return code


def _forked(asked: dict[str, Any]) -> int | None:
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            code = _run(asked)
        finally:
            os._exit(code)
    end = time.monotonic() + asked["seconds"]
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> None:
    """Import, then fork a run for each line."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
