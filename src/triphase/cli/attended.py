"""A command as a process of its own, which ends with the process that began it.

    python -m triphase.cli.attended WORDS

Its standard input is held open by who began it; that it ends means that they are gone, however they ended.
"""

import os
import sys
import threading

from triphase.cli.main import main
from triphase.cli.program import end


def _end_with_beginner() -> None:
    os.read(0, 1)  # not by sys.stdin, whose lock would be held when the interpreter ends
    os._exit(1)  # as a kill: what is finished is kept, and the next start goes on


if __name__ == "__main__":
    threading.Thread(target=_end_with_beginner, daemon=True).start()
    end(main(sys.argv[1:]))
