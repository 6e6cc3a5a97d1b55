"""The end of the program."""

import os
import sys
from typing import NoReturn

from triphase.training.distributed.environment import place_in


def end(code: int) -> NoReturn:
    """Leave with this exit code.

    One process of several leaves at once: some libraries abort when the interpreter takes their threads down.
    """
    if "RANK" in os.environ and place_in(os.environ).world > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
