"""The end of the program."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from triphase.errors import SettingsError
from triphase.training.distributed.environment import place_in


def end(code: int) -> NoReturn:
    """Exit with this code.

    One process of several exits immediately: some libraries abort when the interpreter shuts down their threads.
    """
    with suppress(SettingsError):  # an invalid environment: reported by the command
        if "RANK" in os.environ and place_in(os.environ).world > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)
