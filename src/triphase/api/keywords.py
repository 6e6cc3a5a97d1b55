"""Settings passed to a function by keyword: sections as mappings, or single settings by their dotted names.

    ppo={"iterations": 20}         or         **{"ppo.iterations": 20}

They are equivalent to a settings file with the same values, with the same errors.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triphase.errors import SettingsError
from triphase.runs.dependence import flat
from triphase.settings.loading import load_settings, settings_from
from triphase.settings.schema import RunSettings
from triphase.settings.source import SettingsSource, parse_source


def settings_of(caller: str, keywords: Mapping[str, Any]) -> RunSettings:
    """The settings of a run; ``caller`` is the function that got the keywords, for messages.

    Raises:
        SettingsError: one is unknown, given twice, or not allowed.
    """
    text = _as_json(caller, _nested(caller, keywords))
    values = parse_source(text, caller).values
    return settings_from(SettingsSource(caller, values, {}), None, Path.cwd())


def changed_settings(caller: str, run: Path, keywords: Mapping[str, Any]) -> RunSettings:
    """The settings of an existing run, with overrides.

    Raises:
        SettingsError: as in `settings_of`.
    """
    overrides = {name: _as_json(caller, value) for name, value in flat(_nested(caller, keywords))}
    return load_settings(run, overrides)


def _nested(caller: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in keywords.items():
        *above, last = name.split(".")
        for key in reversed(above):
            last, value = key, {last: value}
        _lay(caller, values, last, value, name)
    return values


def _lay(caller: str, values: dict[str, Any], key: str, value: Any, name: str) -> None:
    """Put ``value`` under ``key``; two mappings are merged."""
    if isinstance(value, Mapping) and isinstance(values.get(key, {}), dict):
        section = values.setdefault(key, {})
        for inner, each in value.items():
            _lay(caller, section, inner, each, name)
    elif key in values:
        raise SettingsError(f"{caller}: {name}: {key} is given twice; give it once")
    else:
        values[key] = value


def _as_json(caller: str, value: Any) -> str:
    """``value`` as JSON, which is YAML too: it is parsed like a value in a settings file."""
    try:
        return json.dumps(value, default=_path_text, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"{caller}: settings must be finite numbers, strings, booleans, None, or lists and mappings of these "
            f"({error})"
        ) from None


def _path_text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    raise TypeError(f"found {value!r:.60} of type {type(value).__name__}")
