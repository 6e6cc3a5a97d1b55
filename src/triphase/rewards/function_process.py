"""The other end of `process`: imports a scoring function, then calls it for each line, until the pipe closes.

``python -P -m triphase.rewards.function_process``. The first line has the paths of modules; each further one names a
function with its options, and may have a batch for it. The responses go to the standard output that the process was
given; what the function prints goes to standard error, which the run writes to its log. Its standard input is empty. A
child that the function forks and that returns from it sends no response. It does not import torch, unless the function
does.
"""

import json
import os
import queue
import sys
import threading
from typing import IO, Any

from triphase.errors import SettingsError
from triphase.rewards.answering import answer_of
from triphase.rewards.call_conventions import Convention
from triphase.rewards.importing import imported


def main() -> None:
    """Import, then respond."""
    questions = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False, buffering=1)
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(questions, asked), daemon=True).start()
    sys.path[:] = asked.get()["path"]
    functions, process = Functions(), os.getpid()
    while True:
        answer = functions.answer(asked.get())
        if os.getpid() != process:
            os._exit(0)  # a second response to one request would be taken for that to the next
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _read(questions: IO[bytes], asked: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Reads lines into the queue; the end of the run ends this process, whatever the function is doing."""
    for line in questions:
        asked.put(json.loads(line))
    os._exit(0)


class Functions:
    """The functions that have been requested, each with its options, imported once."""

    def __init__(self) -> None:
        self._known: dict[str, Convention] = {}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A function's result for a batch, or why it has none."""
        key = json.dumps([asked["function"], asked["options"]], sort_keys=True)
        try:
            if key not in self._known:
                self._known[key] = Convention(imported(asked["function"], asked["setting"]), asked["options"])
        except SettingsError as error:
            return {"refused": str(error)}
        return answer_of(self._known[key], asked)


if __name__ == "__main__":
    main()
