"""What `compare` compares: a run, an artifact of one, a checkpoint of PPO, or any model."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triphase.errors import RunError
from triphase.runs.best_checkpoint import BEST
from triphase.runs.checkpoints import checkpoints_of, require_checkpoint
from triphase.runs.evaluation import AT
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.phase_names import PPO, REWARD, SFT, VARIANTS, policy_of, ppo_phase, variant_of
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import is_place, is_whole, place_of, sum_of
from triphase.training.checkpoint_places import CHECKPOINTS
from triphase.training.checkpoint_places import place_of as place_of_checkpoint

_DEEPEST = 4
_PHASES = ((SFT,), (REWARD,), (PPO,), (VARIANTS,))
"""Prefixes of paths inside a run; some may not exist: a run that trains no SFT policy has no `sft`."""
_KEPT_BY_SIZE = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt")


@dataclass(frozen=True, slots=True)
class ComparedPolicy:
    """One policy of a comparison.

    Attributes:
        name: as given.
        run: its run; None for a model.
        policy: of a run: `sft`, `ppo`, `arm:NAME`, one of the two at an iteration (`ppo@STEP`), or `best`.
        final: the directory of its weights; for a model, its name.
        digest: identifies samples from it.
    """

    name: str
    run: Path | None
    policy: str
    final: Path
    digest: str


def sides_of(names: Sequence[str]) -> list[ComparedPolicy]:
    """The policies of a comparison.

    Raises:
        RunError: one is given twice, or a run has none of that name.
    """
    found = [side_of(name) for name in names]
    for place, side in enumerate(found):
        for other in found[:place]:
            if (side.run, side.policy, side.digest) == (other.run, other.policy, other.digest):
                raise RunError(f"{other.name} and {side.name} are the same policy; give two different ones")
    return found


def side_of(name: str) -> ComparedPolicy:
    """One policy by its name on the command line.

    Raises:
        RunError: a run has no such policy.
    """
    path = Path(name)
    whole, exists = path.resolve(), os.path.isdir(path)
    for run in (whole, *whole.parents[:_DEEPEST]):
        parts = whole.relative_to(run).parts
        if (exists or parts[:1] in _PHASES) and os.path.isfile(run / RUN_CONFIG):
            settings = load_settings(run)
            return _of_run(name, run, _policy_at(name, run, settings, parts), settings)
    return ComparedPolicy(name, None, "", path, _digest("model", name, *(_files_of(path) if exists else ())))


def _policy_at(name: str, run: Path, settings: RunSettings, parts: tuple[str, ...]) -> str:
    """The policy that a path inside a run refers to; the newest for the run itself."""
    match parts[:-1] if len(parts) > 1 and is_place(run.joinpath(*parts)) else parts:
        case ():
            return PPO if is_whole(place_of(run, PPO)) else SFT
        case ("sft" | "ppo" as phase,):
            return phase
        case (folder, variant) if folder == VARIANTS and variant in settings.variants:
            return policy_of(variant)
        case ("ppo", "checkpoints", step) if step.isdecimal():
            require_checkpoint(run, int(step))
            return f"{AT}{int(step)}"
        case (folder, variant, "checkpoints", step) if (
            folder == VARIANTS and variant in settings.variants and step.isdecimal()
        ):
            require_checkpoint(run, int(step), variant)
            return f"{policy_of(variant)}@{int(step)}"
        case ("ppo", "best"):
            return BEST
    trained = ["ppo", *(ppo_phase(variant) for variant in settings.variants)]
    known = ", ".join(["sft", *trained, "ppo/best", *(f"{phase}/{CHECKPOINTS}/STEP" for phase in trained)])
    raise RunError(f"{name}: is not a policy of the run {run}; there are {known}")


def _of_run(name: str, run: Path, policy: str, settings: RunSettings) -> ComparedPolicy:
    if policy == SFT and settings.sft_method == "none":
        return ComparedPolicy(name, run, policy, place_of(run, SFT), reference_digest(run, settings))
    named, _, step = policy.partition("@")
    if step:
        final = place_of_checkpoint(checkpoints_of(run, variant_of(named)), int(step))
    elif policy == BEST:
        final = run / PPO / BEST
        if not is_whole(final):
            raise RunError(f"{name}: none is selected yet, or it is damaged; triphase evaluate {run} --checkpoint best")
    else:
        phase = policy if (variant := variant_of(policy)) is None else ppo_phase(variant)
        final = place_of(run, phase)
        if not is_whole(final):
            raise RunError(f"{name}: {run} has no {phase} yet, or it is damaged; run `triphase run {run}`")
    return ComparedPolicy(name, run, policy, final, _digest("artifact", sum_of(final)))


def reference_digest(run: Path, settings: RunSettings) -> str:
    """Identifies the reference policy of a run."""
    if settings.sft_method == "none":
        return _digest("base", settings.model.name, str(settings.model.adapter))
    return _digest("artifact", sum_of(place_of(run, SFT)))


def _files_of(directory: Path) -> list[str]:
    """The files of a model's directory, by name and size: large ones are not read for their checksums."""
    found = {path for pattern in _KEPT_BY_SIZE for path in directory.glob(pattern)}
    return [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sorted(found)]


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
