"""The dtype that `model.dtype: auto` selected when a run was started. It stays, since another changes the numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from triphase.runs.provenance import read_config
from triphase.settings.schema import ModelSettings, RunSettings

_PLACE, _KEY = "machine", "dtype"


def kept_dtype(run: Path) -> str | None:
    """The dtype of the base with which a run was started; None if its settings name one, or it is unknown.

    Raises:
        RunError: `config.yaml` cannot be read.
    """
    path = run / "config.yaml"
    return dtype_in(read_config(path)) if path.is_file() else None


def in_kept_dtype(settings: RunSettings, run: Path) -> RunSettings:
    """The settings with the dtype in which ``run`` continues in place of `auto`, for a plan; with all weights trained
    in phase 1 that is the plan's to choose.

    Raises:
        RunError: `config.yaml` cannot be read.
    """
    model, dtype = settings.model, kept_dtype(run)
    if model.dtype != "auto" or settings.sft_method == "full" or dtype is None:
        return settings
    return settings.model_copy(update={"model": model.model_copy(update={"dtype": dtype})})


def inherited_dtype(settings: RunSettings) -> str | None:
    """The dtype of the first of the rounds before this run; None if it is not a further round, or that is unknown."""
    first = next(iter(settings.earlier_rounds), None)
    return None if first is None else kept_dtype(Path(first))


def dtype_in(config: Mapping[str, Any]) -> str | None:
    """The same for a `config.yaml` that was read."""
    found = (config.get(_PLACE) or {}).get(_KEY)
    return found if found in ("float32", "bfloat16") else None


def with_dtype(
    config: Mapping[str, Any], model: ModelSettings, measure: Callable[[], str] | None, *, begun: bool
) -> tuple[dict[str, Any], str | None]:
    """`config.yaml` with the resolved dtype, and a note if this machine would select another one now.

    Once a phase has started, the stored dtype stays. ``measure`` selects this machine's; None changes nothing.
    """
    place = {name: value for name, value in (config.get(_PLACE) or {}).items() if name != _KEY}
    if model.dtype != "auto":
        return {**config, _PLACE: place}, None
    if measure is None:
        return dict(config), None
    now = measure()
    kept = dtype_in(config) if begun else None
    note = None
    if kept not in (None, now):
        note = (
            f"model.dtype: auto was {kept} when this run was started, and would be {now} on this "
            f"machine: it continues in {kept}, so that its results stay the same"
        )
    return {**config, _PLACE: {**place, _KEY: kept or now}}, note
