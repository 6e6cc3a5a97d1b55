"""The schema as a flat list of settings: the path, meaning, default and allowed values of each.

Error messages and the documentation both describe settings in these words, so that they agree.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic.fields import FieldInfo

from triphase.settings.base import Settings
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import RunSettings
from triphase.settings.source import KeyPath


@dataclass(frozen=True, slots=True)
class SettingField:
    """One setting. ``default`` is the text of its default value; empty for a setting that must be given."""

    path: KeyPath
    meaning: str
    default: str
    allowed: str

    @property
    def name(self) -> str:
        return ".".join(str(key) for key in self.path)


def section_of(field: FieldInfo) -> type[Settings] | None:
    """The section that a field contains, if any."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def element_of(field: FieldInfo) -> type[Settings] | None:
    """The section of each element of a field's list, if the field is a list of sections."""
    for argument in getattr(field.annotation, "__args__", ()):
        if isinstance(argument, type) and issubclass(argument, Settings):
            return argument
    return None


def settings_fields(model: type[Settings] = RunSettings, above: KeyPath = ()) -> Iterator[SettingField]:
    """Every setting under ``model`` with a value of its own; elements of lists are under ``[]``."""
    for name, field in model.model_fields.items():
        path = (*above, name)
        section, element = section_of(field), element_of(field)
        if section is not None:
            defaults = None if field.is_required() else field.default
            yield from _with_defaults(settings_fields(section, path), defaults, len(path))
            continue
        allowed = allowed_values(path) if path == ("variants",) else _allowed(model, name)
        yield SettingField(path, field.description or "", _default(field), allowed)
        if element is not None:
            yield from settings_fields(element, (*above, f"{name}[]"))


def allowed_values(path: KeyPath) -> str:
    """The allowed values at ``path``, in words; empty if the path is not a setting."""
    if path[:1] == ("variants",):
        return _allowed_below(PPOSettings, path[2:]) if len(path) > 2 else "a mapping of names to `ppo` settings"
    return _allowed_below(RunSettings, path)


def _allowed_below(model: type[Settings], path: KeyPath) -> str:
    names = [str(key) for key in path if not isinstance(key, int)]
    for name in names[:-1]:
        field = model.model_fields.get(name)
        inner = field and (section_of(field) or element_of(field))
        if not inner:
            return ""
        model = inner
    return _allowed(model, names[-1]) if names and names[-1] in model.model_fields else ""


def _with_defaults(fields: Iterator[SettingField], defaults: Settings | None, depth: int) -> Iterator[SettingField]:
    """``fields`` with the defaults that their section has here, which may differ from those of its class."""
    for field in fields:
        if defaults is None or any(str(key).endswith("[]") for key in field.path):
            yield field
            continue
        value: Any = defaults
        for key in field.path[depth:]:
            value = getattr(value, str(key))
        yield SettingField(field.path, field.meaning, as_text(value), field.allowed)


def as_text(value: Any) -> str:
    """A value as it would be written in a settings file."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case tuple() | list():
            return "[" + ", ".join(as_text(item) for item in value) + "]"
        case Mapping():
            return "{" + ", ".join(f"{key}: {as_text(item)}" for key, item in value.items()) + "}"
        case float():
            return f"{value:g}"
    return str(value)


def _default(field: FieldInfo) -> str:
    return "" if field.is_required() else as_text(field.default)


@cache
def _properties(model: type[Settings]) -> dict[str, dict[str, Any]]:
    return dict(model.model_json_schema()["properties"])


def _allowed(model: type[Settings], name: str) -> str:
    words, element = _words(_properties(model)[name]), element_of(model.model_fields[name])
    needed = [key for key, field in element.model_fields.items() if field.is_required()] if element else []
    return f"{words}: `[{{{needed[0]}: …}}]`" if needed else words


_PLAIN = {"boolean": "`true` | `false`", "null": "`null`", "object": "a mapping"}


def _words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return ", or ".join(_words(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{as_text(schema['const'])}`"
    match schema.get("type"):
        case "integer":
            return "a whole number" + _bounds(schema)
        case "number":
            return "a number" + _bounds(schema)
        case "string":
            return str(schema.get("words", "text"))
        case "array":
            return _array_words(schema)
    return _PLAIN.get(schema.get("type", ""), "a section of settings")


def _array_words(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return "a list of " + " and ".join(_words(item) for item in schema["prefixItems"])
    items = schema.get("items", {})
    words = _words(items).removeprefix("a ").removesuffix(" of settings")
    return f"a list of {words if '|' in words else words.removesuffix('s') + 's'}"


def _bounds(schema: Mapping[str, Any]) -> str:
    above, least = schema.get("exclusiveMinimum"), schema.get("minimum")
    below, most = schema.get("exclusiveMaximum"), schema.get("maximum")
    lower = f"above {above:g}" if above is not None else f"at least {least:g}" if least is not None else ""
    upper = f"below {below:g}" if below is not None else f"at most {most:g}" if most is not None else ""
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    return " " + " and ".join(part for part in (lower, upper) if part) if lower or upper else ""
