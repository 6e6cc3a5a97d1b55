"""The dtype that `model.dtype: auto` took where a run was begun. It stays, since another one gives other numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from triphase.runs.provenance import read_config
from triphase.settings.schema import ModelSettings, RunSettings

_PLACE, _KEY = "machine", "dtype"


def kept_dtype(run: Path) -> str | None:
    """The dtype of the base that a run directory was begun with; None where its settings name one, or it is not known.

    Raises:
        RunError: `config.yaml` cannot be read.
    """
    path = run / "config.yaml"
    return dtype_in(read_config(path)) if path.is_file() else None


def inherited_dtype(settings: RunSettings) -> str | None:
    """The dtype of the first of the rounds before this run; None where it is no further round, or that is not known."""
    first = next(iter(settings.earlier_rounds), None)
    return None if first is None else kept_dtype(Path(first))


def dtype_in(config: Mapping[str, Any]) -> str | None:
    """The same of a `config.yaml` that was read."""
    found = (config.get(_PLACE) or {}).get(_KEY)
    return found if found in ("float32", "bfloat16") else None


def with_dtype(
    config: Mapping[str, Any], model: ModelSettings, measure: Callable[[], str] | None, *, begun: bool
) -> tuple[dict[str, Any], str | None]:
    """`config.yaml` with the dtype that ``auto`` is, and a line where this machine would take another one now.

    Once a phase has begun, what is kept stays. ``measure`` says what this machine takes; None leaves all as it is.
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
            f"model.dtype: auto was {kept} when this run was begun, and would be {now} on this machine: it goes on in "
            f"{kept}, so that its numbers stay the same"
        )
    return {**config, _PLACE: {**place, _KEY: kept or now}}, note
