"""How the settings of a run differ from those that it was started with."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from triphase.runs.dependence import is_way_to_server
from triphase.settings.phase_names import shown_phase
from triphase.settings.schema import RunSettings

_LONGEST_SHOWN, _LONGEST_OPTION = 80, 400
_YAML_SIGNS = set("#:{}[],&*!|>'\"%@`?\n")


def differences(kept: Any, wanted: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of each setting that differs."""
    if isinstance(kept, Mapping) and isinstance(wanted, Mapping):
        for key in [*wanted, *(key for key in kept if key not in wanted)]:
            yield from differences(kept.get(key), wanted.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif kept != wanted:
        yield prefix, kept, wanted


def is_of_a_server(key: str, old: Any, new: Any) -> bool:
    """Whether a change is only of a server's address, of the number of servers, or of request options."""
    moved = not key.rpartition(".")[2].startswith(("address", "servers")) or (bool(old) and bool(new))
    return is_way_to_server(key) and moved


def completed(kept: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with the defaults of settings that its version did not have yet."""
    try:
        return RunSettings.model_validate(kept).model_dump(mode="json")
    except ValueError:
        return kept


def conflict(run: Path, refused: Sequence[tuple[str, Any, Any, str]]) -> str:
    """Why a run cannot go on with (key, old value, new value, phase that started with the old one), and what can."""
    found = ", ".join(f"{key} is {shown(old)} there and {shown(new)} here" for key, old, new, _ in refused)
    phases = list(dict.fromkeys(shown_phase(phase) for _, _, _, phase in refused))
    started = f"{' and '.join(phases)} {'has' if len(phases) == 1 else 'have'} started with"
    it, which = ("it", refused[0][0]) if len(refused) == 1 else ("them", "them")
    options = " ".join(as_option(key, new) for key, _, new, _ in refused)
    return (
        f"{found}, and {started} {it}; set {which} back, or create a run that shares the finished phases: "
        f"triphase branch {run} NAME {options}"
    )


def shown(value: Any) -> str:
    """A value in a message, as YAML reads it, truncated if it is long."""
    text = _written(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def as_option(key: str, value: Any) -> str:
    """A setting as an option of a command in a shell; a placeholder for a value that is too long for a message."""
    text = _written(value)
    return f"--{key} {shlex.quote(text) if len(text) <= _LONGEST_OPTION else 'VALUE'}"


def _written(value: Any) -> str:
    """YAML of one line: JSON, and text without quotes where it reads as itself."""
    if isinstance(value, str) and value.isprintable() and not set(value) & _YAML_SIGNS:
        try:
            if yaml.safe_load(value) == value:
                return value
        except (yaml.YAMLError, ValueError):
            pass
    return json.dumps(value, ensure_ascii=False, default=str)
