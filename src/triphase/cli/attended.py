"""One run of a sweep as a process of its own, which ends with the process that began it.

    python -m triphase.cli.attended RUN THREADS

Its standard input is held open by the sweep; that it ends means that the sweep is gone, however it was ended.
"""

import os
import sys
import threading

from triphase.cli.main import main


def _end_with_sweep() -> None:
    os.read(0, 1)  # not by sys.stdin, whose lock would be held when the interpreter ends
    os._exit(1)  # as a kill: what is finished is kept, and the next start goes on


if __name__ == "__main__":
    threading.Thread(target=_end_with_sweep, daemon=True).start()
    sys.exit(main(["run", sys.argv[1], "--threads", sys.argv[2]]))
