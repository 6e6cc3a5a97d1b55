"""The state of a phase before its first checkpoint, to which it returns if memory does not suffice after a step.

It is in a file without a name, which ends with the process: a run that is started again begins the phase itself.
"""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from triphase.records.files import disk_errors, make_directory
from triphase.training.checkpoint import Checkpoint
from triphase.training.state import TrainingState


class UnsavedStart:
    """A copy of a state on the disk of a phase's directory."""

    def __init__(self, state: TrainingState[Any], directory: Path) -> None:
        """Copy it.

        Raises:
            RunError: the disk is full or cannot be written.
        """
        now = state.as_checkpoint()
        self._directory, self._values = make_directory(directory), json.dumps(now.values)
        with disk_errors(directory):
            self._file = tempfile.TemporaryFile(dir=directory)
            try:
                self._file.write(save({name: each.detach().cpu().contiguous() for name, each in now.tensors.items()}))
                self._file.flush()
            except OSError:
                with suppress(OSError):
                    self._file.close()
                raise

    def restore(self, state: TrainingState[Any]) -> None:
        """Take the state back to the copy."""
        self._file.seek(0)
        values = json.loads(self._values)
        state.continue_from(Checkpoint(values["position"], load(self._file.read()), values), self._directory)

    def close(self) -> None:
        """Free the space."""
        self._file.close()
