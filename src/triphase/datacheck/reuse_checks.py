"""Checks of the artifacts that a run takes from elsewhere (`sft.from`, `reward.from`), before its first step."""

import importlib.util
from pathlib import Path
from typing import Any

from triphase.datacheck.model_names import place_of
from triphase.demo.embedded import public_name
from triphase.errors import ModelError, RunError
from triphase.models.chain import base_of, chain_of, errors_under, is_adapter, is_same
from triphase.models.files import ADAPTER_CONFIG, CONFIG, read_object
from triphase.models.places import directory_of, fetched
from triphase.models.pretrained import open_tokenizer
from triphase.settings.loading import RUN_CONFIG
from triphase.settings.phase_names import REWARD, SFT
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import Taken, damage_of, sum_of
from triphase.training.artifacts import place_of as place_of_artifact

_SCORE_HEAD = "score_head.safetensors"
_WHAT = {SFT: "a policy", REWARD: "a reward model"}


def taken_artifacts(settings: RunSettings) -> dict[str, Taken | None]:
    """The replacement of each phase that may be taken from elsewhere; None for the others.

    Raises:
        ModelError, RunError: it does not exist, is damaged, or is of another kind, base, tokenizer or size.
    """
    found: dict[str, Taken | None] = {SFT: None, REWARD: None}
    for phase, origin in ((SFT, settings.sft.taken_from), (REWARD, settings.reward.taken_from)):
        if origin is not None:
            with errors_under(f"{phase}.from"):
                place = _place(phase, origin)
                _require_kind(phase, place)
                _require_base(settings, phase, place, found[SFT])
                _require_sizes(settings, phase, place)
                _require_tokenizer(settings, phase, place)
            found[phase] = Taken(origin, str(place.resolve()), sum_of(place))
    return found


def _place(phase: str, origin: str) -> Path:
    """The directory, which is intact."""
    directory = directory_of(origin) or fetched(origin)
    if (directory / RUN_CONFIG).is_file():
        run, directory = directory, place_of_artifact(directory, phase)
        if not directory.is_dir():
            raise RunError(f"{phase}.from: {run} has not finished {phase}; run `triphase {phase} {run}` first")
    damage = damage_of(directory)
    if damage is not None:
        own = (
            "a classifier of your own is a scorer (ppo.scorer.kind: classifier)"
            if phase == REWARD
            else "for an adapter of your own set model.adapter, for a model model.name"
        )
        raise RunError(f"{phase}.from: {directory} is not the intact result of a phase: {damage}; {own}")
    return directory


def _require_kind(phase: str, place: Path) -> None:
    config = read_object(place / ADAPTER_CONFIG) if is_adapter(place) else {}
    scores = (place / _SCORE_HEAD).is_file() and config.get("task_type") == "SEQ_CLS"
    whole = read_object(place / CONFIG) if (place / CONFIG).is_file() else None
    classifies = whole is not None and "SequenceClassification" in str(whole.get("architectures"))
    writes = not classifies and ((is_adapter(place) and not scores) or whole is not None)
    if phase == REWARD and classifies:
        raise RunError(
            f"{phase}.from: {place} is a reward model merged into its base, and the adapter is taken: give the run, or "
            f"`triphase export --what reward --adapter`; or score with it: ppo.scorer of kind classifier"
        )
    if not (scores if phase == REWARD else writes):
        raise RunError(f"{phase}.from: {place} holds {_WHAT[SFT if writes else REWARD]}, not {_WHAT[phase]}")


def _require_base(settings: RunSettings, phase: str, place: Path, sft: Taken | None) -> None:
    """Require that the adapter belongs to the base that this run then has."""
    if not is_adapter(place):
        return  # a whole model is the base
    named = base_of(place, scores=phase == REWARD)
    model = settings.model
    ours = [model.adapter or model.name]
    if model.adapter is None:
        ours += [place_of(model.name), public_name(model.name)[0]]
    if phase == REWARD and settings.sft_method == "full":
        ours = ["what sft.method: full trains here"]
    elif phase == REWARD and sft is not None and not is_adapter(Path(sft.place)):
        ours = [sft.place]
    theirs = (named, place_of(named, place))
    if not any(is_same(one, other) for one in theirs for other in ours):
        raise ModelError(
            f"model.name: {place} was trained on {theirs[1]}, and the base here is {ours[0]}; name that model, or "
            f"leave {phase}.from out"
        )


def _require_sizes(settings: RunSettings, phase: str, place: Path) -> None:
    """Require that its rank, scale and layers are those of `adapters`: the roles share them."""
    if not is_adapter(place):
        return
    config, ours = read_object(place / ADAPTER_CONFIG), settings.adapters
    layers = config.get("layers_to_transform") or []
    every = bool(layers) and min(layers) == 0
    pairs: list[tuple[str, Any, Any]] = [
        ("rank", config.get("r"), ours.rank),
        ("alpha", config.get("lora_alpha"), ours.alpha),
    ]
    fits = every if ours.layers == "all" else len(layers) == ours.layers or (every and len(layers) < ours.layers)
    if not fits:
        pairs.append(("layers", "all" if every else len(layers), ours.layers))
    if ours.targets != "all-linear" and set(ours.targets) != set(config.get("target_modules") or []):
        pairs.append(("targets", sorted(config.get("target_modules") or []), list(ours.targets)))
    for name, theirs, here in pairs:
        if theirs != here:
            raise ModelError(
                f"model.name: {place} was trained with adapters.{name} {theirs}, and here it is {here}; set "
                f"adapters.{name}: {theirs}"
            )


def _require_tokenizer(settings: RunSettings, phase: str, place: Path) -> None:
    if importlib.util.find_spec("transformers") is None:
        return
    chain = chain_of(settings.model, place_of, weights=False)
    theirs, ours = (open_tokenizer(at, settings.model).get_vocab() for at in (str(place), chain.tokenizer))
    if theirs != ours:
        raise ModelError(
            f"model.name: the tokenizer of {place} has {len(theirs)} tokens, and that of {chain.tokenizer} has "
            f"{len(ours)}, or others; use the model that it was trained with, or leave {phase}.from out"
        )
