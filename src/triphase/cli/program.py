"""The end of the program."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from triphase.errors import SettingsError
from triphase.training.distributed.environment import place_in


def end(code: int) -> NoReturn:
    """Leave with this exit code.

    One process of several leaves at once: some libraries abort when the interpreter takes their threads down.
    """
    with suppress(SettingsError):  # an environment that names no place: told by the command
        if "RANK" in os.environ and place_in(os.environ).world > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)
