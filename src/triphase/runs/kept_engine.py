"""The engine that samples a PPO run, as the trial of `rollouts.engine: auto` left it in the run's checkpoints."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.rollouts.engines import SERVERS, EngineChoice
from triphase.settings.phase_names import PPO, REWARD, SFT
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import is_whole, name_of
from triphase.training.checkpoint_places import CHECKPOINTS, VALUES, place_of, whole_steps


def kept_choice(run: Path, phase: str) -> EngineChoice | None:
    """The engine that the newest checkpoint of a PPO phase, or else of the main PPO run, was sampled with.

    None if there is no checkpoint. A phase that began without a trial was sampled by servers.
    """
    for each in dict.fromkeys((phase, PPO)):
        values = _newest(run / each)
        if values is None:
            continue
        if values.get("engine") is not None:
            return EngineChoice(**values["engine"])
        if each == phase:
            return EngineChoice(SERVERS)
    return None


def _newest(phase: Path) -> dict[str, Any] | None:
    """The values of the newest checkpoint of a phase; None if it has none."""
    parent = phase / CHECKPOINTS
    step = next(whole_steps(parent), None)
    if step is None:
        return None
    found: dict[str, Any] = json.loads((place_of(parent, step) / VALUES).read_text(encoding="utf-8"))["values"]
    return found


def require_same_engine(run: Path, settings: RunSettings, begun: Iterable[str]) -> None:
    """Refuse to continue by servers a phase whose trial left sampling to this process.

    Raises:
        RunError: the settings would.
    """
    if not settings.rollouts.by_servers or settings.rollouts.tries_both:
        return
    for phase in begun:
        kept = (_newest(run / phase) or {}).get("engine") if phase not in (SFT, REWARD) else None
        if kept is not None and not EngineChoice(**kept).by_servers and not is_whole(run / name_of(phase)):
            raise RunError(
                f"{run}: {phase} began with rollouts.engine auto, which left sampling to this process, and would "
                f"continue by servers; set rollouts.engine: auto again, or create a run that is sampled by servers "
                f"from its start: triphase branch {run} NAME --rollouts.engine vllm"
            )
