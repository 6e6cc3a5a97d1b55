"""Settings from the command line: where they go among those of a file, and where each value came from."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triphase.errors import SettingsError
from triphase.settings.fields import as_text
from triphase.settings.places import anchor_paths
from triphase.settings.source import KeyPath, SettingsSource, normalized, parse_value


@dataclass(frozen=True, slots=True)
class Places:
    """Where each value came from: a line of the file, or an option of the command line."""

    source: SettingsSource
    flags: dict[KeyPath, str]

    def of(self, path: KeyPath) -> str:
        """``--ppo.clip-range: `` or ``my.yaml:12: ppo.clip_range: ``, to precede the reason."""
        for length in range(len(path), 0, -1):
            if flag := self.flags.get(path[:length]):
                return f"{flag}: {dotted(path[length:])}: " if path[length:] else f"{flag}: "
        return f"{self.source.where(path)}: {dotted(path)}: " if path else f"{self.source.name}: "

    def of_unknown(self, path: KeyPath) -> str:
        """Like ``of``, for a key that may be part of the name of an option."""
        below = [flag for known, flag in self.flags.items() if known[: len(path)] == path]
        return f"{below[0]}: " if below else self.of(path)


def as_scalar(text: str) -> str:
    """``text`` as an override whose value is exactly this text."""
    return "'" + text.replace("'", "''") + "'"


def override(values: dict[str, Any], name: str, text: str, places: Places) -> None:
    """Set the setting with the dotted ``name`` to the value of a YAML ``text``.

    Raises:
        SettingsError: there is nothing of this name, or it has been given before.
    """
    flag = f"--{name}"
    path = normalized(tuple(int(key) if key.isdecimal() else key for key in name.split(".")))
    if "" in path:
        raise SettingsError(f"{flag}: not the name of a setting; use for example --ppo.kl-coefficient")
    if other := places.flags.get(path):
        raise SettingsError(f"{flag}: is given twice, also as {other}; give one of them")
    target: Any = values
    for place, key in enumerate(path[:-1]):
        if isinstance(path[place + 1], int) and isinstance(target, dict) and target.get(key) is None:
            raise SettingsError(
                f"{flag}: {dotted(path[: place + 1])} has no elements; give all of them at once, for example "
                f"--{dotted(path[: place + 1])} '[{{...}}]'"
            )
        target = _inside(target, key, flag)
    last = path[-1]
    if isinstance(target, list):
        _inside(target, last, flag)
    elif not isinstance(target, dict):
        raise SettingsError(f"{flag}: unknown setting; there is nothing below the value {shown(target)}")
    target[last] = parse_value(text, flag)
    places.flags[path] = flag


def _inside(target: Any, key: str | int, flag: str) -> Any:
    if isinstance(target, list):
        if not isinstance(key, int) or key >= len(target):
            raise SettingsError(f"{flag}: there is no element {key}; the list has {len(target)}, counted from 0")
        return target[key]
    if not isinstance(target, dict):
        raise SettingsError(f"{flag}: unknown setting; there is nothing below the value {shown(target)}")
    if target.get(key) is None:
        target[key] = {}
    return target[key]


def anchor(values: dict[str, Any], base: Path, over_base: Path, places: Places) -> None:
    """Make paths absolute: those of the file from ``base``, those of the command line from ``over_base``."""
    over = copy.deepcopy(values)
    found = [(section, path[-1], path) for path in places.flags if (section := _above(values, path)) is not None]
    for section, key, _ in found:
        section[key] = None
    anchor_paths(values, base)
    anchor_paths(over, over_base)
    for section, key, path in found:
        section[key] = _above(over, path)[key]


def _above(values: Any, path: KeyPath) -> Any:
    """The section or list that holds the value at ``path``; None if there is none."""
    for key in path:
        above = values
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            return None
    return above


def shown(value: Any) -> str:
    """A value in a message, truncated if it is long."""
    text = as_text(value)
    return text if len(text) <= 60 else text[:59] + "…"


def dotted(path: KeyPath) -> str:
    """The name of a setting."""
    return ".".join(str(key) for key in path)
