"""Exports of a run's models for other tools: merged into the base, or the adapter unchanged."""

import logging
import shutil
from pathlib import Path
from typing import Literal

from triphase.datacheck.agenda import left_out
from triphase.errors import RunError
from triphase.models.files import ADAPTER_CONFIG, read_object
from triphase.models.roles import REWARD, SharedModel
from triphase.records.files import atomic_directory
from triphase.runs.model_card import with_run
from triphase.runs.opening import open_policy, open_run, require_policy
from triphase.runs.session import Run
from triphase.settings.loading import load_settings
from triphase.settings.phase_names import PPO, SFT, ppo_phase
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import is_whole, rewrite_text
from triphase.training.finals import holds_whole_model, save_whole_model
from triphase.training.reward_finals import load_reward_model, what_plain_libraries_miss
from triphase.training.whole_reward import save_whole_reward_model

What = Literal["policy", "sft", "reward"]
_NAMES = {"sft": "SFT policy", "reward": "reward model"}
_log = logging.getLogger(__name__)


def merge_policy(
    run: Path, to: Path, checkpoint: int | None = None, *, what: What = "policy", variant: str | None = None
) -> None:
    """Write a policy of a run, or its reward model, to ``to`` as an ordinary checkpoint with a card.

    ``checkpoint`` is an iteration of PPO, of a variant if given. The update B·A is added to each weight in float32 and
    rounded once to the base's dtype; a base that the run quantized is opened unquantized.

    Raises:
        RunError: the run has not trained it, or it is several models (an ensemble).
    """
    if what == "reward":
        _merge_reward(run, to)
        return
    if checkpoint is None:
        what = _require_trained(run, what, variant)
    shared, adapter, _ = open_policy(run, checkpoint, SFT if what == "sft" else variant, wide=True)
    if adapter is not None:
        shared.adapters.merge(adapter)
    save_whole_model(shared, to)
    _describe(to, run, load_settings(run), what, _adapted(shared), variant=variant, is_last=checkpoint is None)


def copy_adapter(run: Path, to: Path, *, what: What = "policy", variant: str | None = None) -> None:
    """Copy a phase's artifact (or that of a variant), an adapter in peft's files, to ``to``, with a card.

    Raises:
        RunError: the run has not trained it, or it contains all weights and not an adapter.
    """
    opened = open_run(run)
    if variant is not None:
        require_policy(opened, run, variant, None)
    newest = ppo_phase(variant) if variant is not None or is_whole(opened.artifact(PPO)) else SFT
    final = opened.artifact({"policy": newest, "sft": SFT, "reward": "reward"}[what])
    if not is_whole(final):
        if what == "policy":
            raise RunError(f"{run}: has no policy yet; {_remedy(opened, run)}")
        raise RunError(f"{run}: has no {_NAMES[what]}{_when(opened, run, what)}")
    if holds_whole_model(final):
        raise RunError(f"{final}: contains full weights and no adapter; leave --adapter out")
    with atomic_directory(to) as folder:
        shutil.copytree(final, folder, dirs_exist_ok=True)
    listed = read_object(final / ADAPTER_CONFIG).get("layers_to_transform")
    layers = len(listed) if listed else opened.settings.adapters.layers  # others' adapters may leave them out
    if what == "policy" and newest == SFT:
        _log.warning("%s: has no PPO policy yet; this is its SFT policy", run)
        what = "sft"
    _describe(to, run, opened.settings, what, layers, variant=variant)


def _require_trained(run: Path, what: What, variant: str | None) -> What:
    """What the newest policy is: ``what``, or the SFT policy if there is none of PPO.

    Raises:
        RunError: it is the unchanged model, because the run starts from it and has not trained it (yet).
    """
    opened = open_run(run)
    trained = what == "policy" and is_whole(opened.artifact(ppo_phase(variant)))
    if opened.settings.sft_method == "none" and not trained:
        raise RunError(
            f"{run}: has not trained a policy, only the unchanged {opened.settings.model.name}; {_remedy(opened, run)}"
        )
    if what == "policy" and not trained and PPO not in left_out(opened.settings):
        _log.warning("%s: has no PPO policy yet; this is its SFT policy", run)
        return "sft"
    return what


def _remedy(opened: Run, run: Path) -> str:
    """What to do about a missing policy: it may be trained yet, and a run on preferences alone trains none."""
    else_reward = ", or export its reward model with --what reward" if is_whole(opened.artifact("reward")) else ""
    command = "ppo" if PPO in left_out(opened.settings) else "run"
    return f"run `triphase {command} {run}`{else_reward}"


def _when(opened: Run, run: Path, step: str) -> str:
    """What to do about something that is not trained yet; or why the run trains none."""
    why = left_out(opened.settings).get(step)
    return f" yet; run `triphase run {run}`" if why is None else f", and trains none: {why}"


def _merge_reward(run: Path, to: Path) -> None:
    opened = open_run(run, wide=True)
    final = opened.artifact("reward")
    if not is_whole(final):
        raise RunError(f"{run}: has no reward model{_when(opened, run, 'reward')}")
    if (missed := what_plain_libraries_miss(final)) is not None:
        raise RunError(f"{final}: {missed}; --adapter copies it as it is")
    shared = opened.model()
    load_reward_model(shared, final)
    shared.adapters.merge(REWARD)
    save_whole_reward_model(shared, to)
    _describe(to, run, load_settings(run), "reward", _adapted(shared))


def _adapted(shared: SharedModel) -> int:
    """The number of layers that adapters change."""
    return shared.backbone.layer_count - shared.backbone.trunk_layers


def _describe(
    to: Path,
    run: Path,
    settings: RunSettings,
    what: str,
    layers: int | str,
    *,
    variant: str | None = None,
    is_last: bool = True,
) -> None:
    """Add the run to the model card, with its measurements if they are of this policy: the main PPO run's last.

    ``layers`` is the number of adapted ones: the settings may have more than the model has, or all.
    """
    card = (to / "README.md").read_text(encoding="utf-8")
    own = settings.model_copy(
        update={"ppo": settings.ppo_of(variant), "adapters": settings.adapters.model_copy(update={"layers": layers})}
    )
    rewrite_text(to, "README.md", with_run(card, run, own, what, is_measured=variant is None and is_last))
