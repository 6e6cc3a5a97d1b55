"""The checkpoint of PPO that was selected without gold (`ppo/best`), and why. Starts without torch."""

import json
from pathlib import Path
from typing import Any, Literal

from triphase.errors import RunError
from triphase.settings.phase_names import PPO

BEST = "best"
"""The word for the selected checkpoint, and the name of its directory in `ppo`."""
FILE_NAME = f"{PPO}/choice.json"
Checkpoint = int | Literal["best"] | None


def read_choice(run: Path) -> dict[str, Any] | None:
    """The selection; None if there is none.

    Raises:
        RunError: the file that records it is damaged.
    """
    path = run / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["step"], int):
            raise TypeError("step is not a whole number")
        return dict(found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged ({error}); remove it, and select again: triphase evaluate {run} --checkpoint best"
        ) from None


def step_of(run: Path, checkpoint: Checkpoint, variant: str | None = None) -> int | None:
    """The iteration that ``checkpoint`` refers to, of the main PPO run or of a variant.

    Raises:
        RunError: it is the best one, and none has been selected.
    """
    if checkpoint is None or isinstance(checkpoint, int):
        return checkpoint
    if variant is not None:
        raise RunError(f"--checkpoint best: applies to the main PPO run only, not to {variant}; give an iteration")
    found = read_choice(run)
    if found is None:
        raise RunError(
            f"--checkpoint best: {run} has selected none yet; triphase evaluate {run} --checkpoint best does"
        )
    return int(found["step"])
