"""How the settings of a run differ from those that it was started with."""

from collections.abc import Iterator, Mapping
from typing import Any

from triphase.runs.dependence import is_way_to_server
from triphase.settings.schema import RunSettings

_LONGEST_SHOWN = 80


def differences(kept: Any, wanted: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of each setting that differs."""
    if isinstance(kept, Mapping) and isinstance(wanted, Mapping):
        for key in [*wanted, *(key for key in kept if key not in wanted)]:
            yield from differences(kept.get(key), wanted.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif kept != wanted:
        yield prefix, kept, wanted


def is_of_a_server(key: str, old: Any, new: Any) -> bool:
    """Whether a change is only of a server's address or of its request options."""
    moved = not key.rpartition(".")[2].startswith("address") or (bool(old) and bool(new))
    return is_way_to_server(key) and moved


def completed(kept: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with the defaults of settings that its version did not have yet."""
    try:
        return RunSettings.model_validate(kept).model_dump(mode="json")
    except ValueError:
        return kept


def shown(value: Any) -> str:
    """A value in a message, truncated if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
