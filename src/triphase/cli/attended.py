"""A command as a separate process, which ends with the process that started it.

    python -m triphase.cli.attended WORDS

Its standard input is held open by the parent; when it is closed, the parent has ended, in whatever way.
"""

import os
import sys
import threading

from triphase.cli.main import main
from triphase.cli.program import end


def _end_with_beginner() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock would be held when the interpreter ends
    os._exit(1)  # like a kill: completed work is kept, and the next start continues


if __name__ == "__main__":
    threading.Thread(target=_end_with_beginner, daemon=True).start()
    end(main(sys.argv[1:]))
