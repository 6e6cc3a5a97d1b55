"""A finished run, opened for reading: its newest policy on its base."""

import os
from pathlib import Path

from triphase.datacheck.model_names import place_of
from triphase.errors import RunError, TriphaseError
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.runs.checkpoints import load_policy_at, require_checkpoint
from triphase.runs.directory import RunDirectory
from triphase.runs.session import Run
from triphase.runs.shared import require_shared
from triphase.settings.loading import load_settings
from triphase.settings.phase_names import PPO, SFT, ppo_phase
from triphase.settings.schema import AdapterSettings, ModelSettings, RunSettings
from triphase.training.artifacts import is_whole
from triphase.training.finals import holds_whole_model, load_policy
from triphase.training.stopping import StopRequest

_OF_A_CARD = ("cuda", "on")
"""Values of settings that need a GPU."""


def open_run(path: Path, *, wide: bool = False) -> Run:
    """A run in its current state, which may have been moved.

    ``wide`` keeps its base in `model.dtype` whatever `model.quantization` says: quantized weights cannot take an
    update.
    """
    here = path.resolve()
    require_shared(here)
    settings = load_settings(path).model_copy(update={"output": str(here.parent), "name": here.name})
    # For training alone, or for a GPU; a machine without one, to which the run was moved, would refuse them.
    changed: dict[str, object] = {"offload": False, "compile_layers": False} | ({"quantization": None} if wide else {})
    changed |= {name: "auto" for name in ("device", "capture_decoding") if getattr(settings.model, name) in _OF_A_CARD}
    settings = settings.model_copy(update={"model": settings.model.model_copy(update=changed)})
    return Run(settings, RunDirectory(settings), SilentProgress(), StopRequest())


def open_policy(
    path: Path, checkpoint: int | None = None, policy: str | None = None, *, wide: bool = False
) -> tuple[SharedModel, str | None, RunSettings]:
    """The model of a run with the adapter of its PPO policy (of its SFT policy if PPO has not been run).

    ``checkpoint`` names an iteration of PPO (of the variant, if ``policy`` is one), whose policy is used instead of the
    last. ``policy`` is `sft`, `ppo` or a variant of the run. ``wide`` as in `open_run`.

    Raises:
        RunError: the run has no policy yet, no such policy, or no such checkpoint.
    """
    run = open_run(path, wide=wide)
    if policy is not None:
        require_policy(run, path, policy, checkpoint)
    variant = None if policy in (None, SFT, PPO) else policy
    if checkpoint is not None:
        require_checkpoint(path, checkpoint, variant)
    settings = run.settings
    if not run.is_done("sft"):
        raise RunError(f"{path}: has no policy yet; run `triphase run` with its configuration first")
    final = run.artifact(ppo_phase(variant))
    trained = policy != SFT and is_whole(final)
    if checkpoint is None and trained and holds_whole_model(final):
        return run.whole_policy(final), None, settings
    shared = run.model()
    if checkpoint is not None:
        found = load_policy_at(shared, path, checkpoint, settings.ppo_of(variant).method, variant)
        return found.model, found.adapter, settings
    if trained:
        load_policy(shared, POLICY, final)
        return shared, POLICY, settings
    return shared, run.reference_adapter, settings


def require_policy(run: Run, path: Path, policy: str, checkpoint: int | None) -> None:
    """Check that the run has trained a policy: `sft`, `ppo` or a variant; ``checkpoint`` is an iteration of its PPO.

    Raises:
        RunError: there is no such policy, or not yet.
    """
    variants = run.settings.variants
    if policy not in (SFT, PPO, *variants):
        raise RunError(f"--policy {policy}: {path} has no such policy; it has {', '.join((SFT, PPO, *variants))}")
    if checkpoint is not None and policy == SFT:
        raise RunError(f"--checkpoint {checkpoint}: is an iteration of ppo, but --policy is {policy}; leave one out")
    if (
        policy != SFT
        and checkpoint is None
        and not is_whole(run.artifact(ppo_phase(None if policy == PPO else policy)))
    ):
        raise RunError(f"--policy {policy}: {path} has not trained it yet; run `triphase run {path}`")


def open_any(
    model: str, checkpoint: int | None = None, policy: str | None = None
) -> tuple[SharedModel, str | None, int]:
    """The policy of a run, or a model by directory, hub id or embedded name; its adapter, and its maximum length.

    Raises:
        RunError: a checkpoint or a policy is named that does not exist, or this is not a run.
    """
    if os.path.isfile(Path(model, "config.yaml")):  # False for a name that is too long
        shared, adapter, settings = open_policy(Path(model), checkpoint, policy)
        return shared, adapter, settings.model.max_length
    if checkpoint is not None:
        raise RunError(f"--checkpoint {checkpoint}: {model} is not a run directory; only a run has checkpoints")
    if policy is not None:
        raise RunError(f"--policy {policy}: {model} is not a run directory; only a run has several policies")
    of_model = ModelSettings(name=model)
    try:
        loaded = load_model(of_model, place_of)
    except TriphaseError as error:  # the model was named by itself, and not in a setting
        raise type(error)(str(error).removeprefix("model.name: ")) from None
    return SharedModel(loaded, AdapterSettings(layers="all"), seed=0), None, of_model.max_length
