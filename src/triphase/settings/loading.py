"""A settings file and the overrides of the command line become ``RunSettings``, or a one-line error.

Later overrides earlier: the schema's defaults, the file, the overrides; a key in a section replaces only that key.
"""

import copy
import difflib
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from triphase import __version__
from triphase.errors import SettingsError
from triphase.settings.base import RUN_NAME, Settings
from triphase.settings.conflicts import note_lost_updates
from triphase.settings.fields import allowed_values, element_of, section_of
from triphase.settings.overrides import Places, anchor, as_scalar, dotted, override, shown
from triphase.settings.places import absolute
from triphase.settings.ppo import PPOSettings
from triphase.settings.renamed import note_old_names, old_names, with_new_names
from triphase.settings.schema import RunSettings
from triphase.settings.source import KeyPath, SettingsSource, read_source
from triphase.settings.taken_reward_model import note_idle_remedies
from triphase.settings.without_critic import note_idle_settings

RUN_CONFIG = "config.yaml"
"""The settings file of a run directory. There they are under ``settings``, next to versions and fingerprints."""


def load_settings(path: Path, overrides: Mapping[str, str] | None = None) -> RunSettings:
    """The settings in the file at ``path`` with ``overrides`` (dotted name → YAML text).

    Relative paths of data files, and of a model directory, are relative to the directory of the file. ``path`` may be a
    run directory: then its own settings are loaded, with its current location and name, and paths in ``overrides`` are
    relative to the working directory: nobody keeps files for a run inside of it.
    """
    if os.path.isfile(path / RUN_CONFIG):  # False for a name that is too long
        if not re.fullmatch(RUN_NAME, (here := absolute(path)).name):
            raise SettingsError(f"{path}: the name of a run's directory has letters, digits and . _ -; rename it")
        overrides = {"output": as_scalar(str(here.parent)), "name": as_scalar(here.name), **(overrides or {})}
        source = read_source(path / RUN_CONFIG)
        try:
            return settings_from(source, overrides, here, over_base=absolute(Path()))
        except SettingsError as error:
            version = _version_in(source)
            if version in (None, __version__) or not str(error).startswith(source.name):
                raise
            raise SettingsError(f"{error}; triphase {version} started this run, and this is {__version__}") from None
    return settings_from(read_source(path), overrides, absolute(path).parent)


def version_of_run(directory: Path) -> str | None:
    """The version of Triphase that started the run in a directory; None if it is not a run, or the version is
    unknown."""
    try:
        return _version_in(read_source(directory / RUN_CONFIG))
    except SettingsError:
        return None


def _version_in(source: SettingsSource) -> str | None:
    versions = source.values.get("versions")
    version = versions.get("triphase") if isinstance(versions, dict) else None
    return version if isinstance(version, str) else None


def settings_from(
    source: SettingsSource, overrides: Mapping[str, str] | None, base: Path, *, over_base: Path | None = None
) -> RunSettings:
    """Settings from a source: with overrides, unknown keys refused, values checked, paths made absolute.

    Paths of the overrides are relative to ``over_base``, which is ``base`` if it is not given.
    """
    source, whole = source.below("settings"), source
    values = copy.deepcopy(source.values)
    places = Places(source, {})
    _rename_old(values, places, quiet=source is not whole)
    _refuse_unknown(RunSettings, values, (), places)
    for name, text in (overrides or {}).items():
        override(values, name, text, places)
    _rename_old(values, places, over=True)
    _refuse_unknown(RunSettings, values, (), places)
    _refuse_odd_numbers(values, (), places)
    anchor(values, base, over_base or base, places)
    given, values = values, _over_defaults(RunSettings, values)
    variants = values.pop("variants", {})
    _validated(values, (), places)
    for variant in variants if isinstance(variants, Mapping) else ():
        _validated({**values, "variants": {variant: variants[variant]}}, ("variants", variant), places)
    settings = _validated({**values, "variants": variants}, (), places)
    if source is whole:  # the settings of a run are below a key, and there every one is given
        note_idle_settings(given)
        note_idle_remedies(given)
        note_lost_updates(settings)
    return settings


def _validated(values: Mapping[str, Any], variant: KeyPath, places: Places) -> RunSettings:
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, variant, places)) from None


def _rename_old(values: dict[str, Any], places: Places, *, over: bool = False, quiet: bool = False) -> None:
    """Put settings under their current names; ``over`` for those of the command line, ``quiet`` for a run
    directory's."""
    variants = values.get("variants")
    sections = [
        ((), "ppo"),
        *((("variants",), variant) for variant in (variants if isinstance(variants, dict) else ())),
    ]
    for above, name in sections:
        home = values[above[0]] if above else values
        section, path = home.get(name), (*above, name)
        if not isinstance(section, dict) or not (old := old_names(section)):
            continue
        if not quiet:
            note_old_names(dotted(path), section)
        for key, new in old.items():
            if flag := places.flags.get((*path, key)):
                if other := places.flags.get((*path, new)):
                    raise SettingsError(f"{flag}: {key} is the old name of {new}, given as {other}; give {new} alone")
                places.flags[*path, new] = flag  # the value is refused under the name that was typed
        try:
            kept = {
                key: value
                for key, value in section.items()
                if not over or key not in old.values() or isinstance(value, dict)
            }
            home[name] = with_new_names(kept)
        except ValueError as error:
            raise SettingsError(f"{places.of((*path, next(iter(old))))}{error}") from None


def _refuse_unknown(model: type[Settings], values: Any, path: KeyPath, places: Places) -> None:
    if not isinstance(values, Mapping):
        return  # a wrong type is refused later, with the allowed values
    for key, value in values.items():
        inner = (*path, key)
        if key not in model.model_fields:
            raise SettingsError(f"{places.of_unknown(inner)}unknown setting{_nearest(str(key), path, model)}")
        if inner == ("variants",):
            for variant, differences in value.items() if isinstance(value, Mapping) else ():
                _refuse_unknown(PPOSettings, differences, ("variants", variant), places)
            continue
        field = model.model_fields[key]
        section, element = section_of(field), element_of(field)
        if section is not None:
            _refuse_unknown(section, value, inner, places)
        elif element is not None and isinstance(value, list):
            for index, item in enumerate(value):
                _refuse_unknown(element, item, (*inner, index), places)


def _nearest(key: str, path: KeyPath, model: type[Settings]) -> str:
    if not path and key == "processes":
        return "; it is an option of `triphase run`; torchrun starts other commands in several processes"
    near = difflib.get_close_matches(key, model.model_fields, n=1)
    if near:
        return f"; did you mean {dotted((*path, near[0]))}?"
    sections = {name: section_of(field) for name, field in RunSettings.model_fields.items()}
    homes = [name for name, section in sections.items() if section and key in section.model_fields]
    if homes:
        return f"; did you mean {dotted((homes[0], key))}?"
    return f"; known here: {', '.join(model.model_fields)}"


def _over_defaults(model: type[Settings], values: Any) -> Any:
    """``values`` of one section over the defaults that each of its inner sections has."""
    if not isinstance(values, Mapping):
        return values
    result = dict(values)
    for name, value in values.items():
        field = model.model_fields[name]
        section = section_of(field)
        if section is None or not isinstance(value, Mapping):
            continue
        inner = _over_defaults(section, value)
        result[name] = inner if field.is_required() else {**field.default.model_dump(), **inner}
    return result


def _explain(error: ValidationError, variant: KeyPath, places: Places) -> str:
    first = error.errors()[0]
    loc = first["loc"] if first["loc"][:1] == ("variants",) else (*variant, *first["loc"])
    path = _path_in_schema(loc)
    others = {_path_in_schema(other["loc"]) for other in error.errors()} - {_path_in_schema(first["loc"])}
    more = f" (and {len(others)} more)" if others else ""
    return f"{places.of(path)}{_reason(first, loc, path)}{more}"


def _reason(error: ErrorDetails, loc: KeyPath, path: KeyPath) -> str:
    if error["type"] == "missing" and loc == path:
        return f"is missing; give {allowed_values(path)}"
    if error["type"] in ("value_error", "assertion_error"):
        return str(error["ctx"]["error"])
    if path[:1] == ("variants",) and len(path) == 2:
        return "not a name for a variant; use small letters, digits and -, or give it a mapping of ppo settings"
    return f"{shown(error['input'])} is not allowed; it must be {allowed_values(path)}"


def _path_in_schema(loc: KeyPath) -> KeyPath:
    """``loc`` without the parts that name a branch of a union, or an element of a plain list, rather than a setting."""
    path: KeyPath = ()
    model: type[Settings] | None = RunSettings
    for index, key in enumerate(loc):
        if index == 1 and loc[0] == "variants":
            model = PPOSettings
        elif model is None or (not isinstance(key, int) and key not in model.model_fields):
            break
        elif not isinstance(key, int):
            field = model.model_fields[key]
            model = section_of(field) or element_of(field)
        path = (*path, key)
    return path


def _refuse_odd_numbers(values: Any, path: KeyPath, places: Places) -> None:
    """Refuse what pydantic would convert to a number: ``true`` for 1, the texts ``inf`` and ``nan``."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            _refuse_odd_numbers(value, (*path, key), places)
        return
    if isinstance(values, list):
        for index, value in enumerate(values):
            _refuse_odd_numbers(value, (*path, index), places)
        return
    allowed = allowed_values(path)
    odd = isinstance(values, bool) or (isinstance(values, str) and not math.isfinite(_number(values)))
    if odd and "number" in allowed:
        raise SettingsError(f"{places.of(path)}{shown(values)} is not allowed; it must be {allowed}")


def _number(text: str) -> float:
    with suppress(ValueError):
        return float(text)
    return 0.0
