"""YAML text to plain values, with the line of every key: the source of settings.

A subset of YAML, on purpose: numbers, true/false, null, text, lists and mappings. ``1e-5`` is a number, ``no`` and
``on`` are text, dates are text. Anchors, tags and duplicate keys are refused: each allows a file to mean something else
than it seems to.
"""

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from triphase.errors import SettingsError
from triphase.settings.renamed import SECTIONS, note_old_section

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """The values of one settings file. ``lines`` maps the path of a key to its line (from 1)."""

    name: str
    values: dict[str, Any]
    lines: dict[KeyPath, int]

    def where(self, path: KeyPath) -> str:
        """``file:line`` of a key, or of the nearest section above it in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name

    def below(self, key: str) -> "SettingsSource":
        """The section ``key`` as a separate source, if there is one; else this source."""
        inner = self.values.get(key)
        if not isinstance(inner, dict):
            return self
        lines = {path[1:]: line for path, line in self.lines.items() if path[0] == key and len(path) > 1}
        return SettingsSource(self.name, inner, lines)


class _Loader(yaml.SafeLoader):
    """SafeLoader that parses numbers, booleans and null like JSON and YAML 1.2, without aliases."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (declared so by PyYAML)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "null", "int", "float", "str", "map", "seq")}
_DEEPEST = 20


def read_source(path: Path) -> SettingsSource:
    """The values and line numbers of a settings file."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise SettingsError(f"{path}: is a pipe or a device; write the settings to a file (.yaml)")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except IsADirectoryError:
        raise SettingsError(f"{path}: is a directory; give a settings file (.yaml)") from None
    except (OSError, ValueError) as error:  # ValueError: an invalid file name
        raise SettingsError(
            f"{path}: cannot be read ({getattr(error, 'strerror', error)}); give a settings file (.yaml)"
        ) from None
    return parse_source(text, str(path))


def parse_source(text: str, name: str) -> SettingsSource:
    """The values and line numbers of settings given as text; ``name`` is used in errors."""
    node = _compose(text, name)
    if node is None:
        raise SettingsError(f"{name}: is empty; a settings file needs at least name, model and data")
    lines: dict[KeyPath, int] = {}
    values = _value(node, (), lines, name)
    if not isinstance(values, dict):
        raise SettingsError(f"{name}:1: is not a mapping of settings; the file starts with lines like `name: my-run`")
    return SettingsSource(name, values, lines)


def parse_value(text: str, name: str) -> Any:
    """One value as it would be after ``key:`` in a settings file."""
    node = _compose(text, name)
    return None if node is None else _value(node, (), {}, name)


def plain_key(key: str) -> str:
    """The spelling of a key in the schema: ``kl-coefficient`` and ``kl_coefficient`` are the same setting."""
    return key.replace("-", "_")


def normalized(path: KeyPath) -> KeyPath:
    """``path`` in the schema's spelling, under the current name of its section; the names of variants are unchanged.

    In the config.yaml of a run all settings are under ``settings``.
    """
    section_at = 1 if path[:1] == ("settings",) else 0
    spelled = [key if isinstance(key, int) else plain_key(key) for key in path]
    if section_at < len(spelled) and isinstance(section := spelled[section_at], str):
        if not section_at:  # the run directory of an older version is read without a note: nobody edits it
            note_old_section(section)
        spelled[section_at] = SECTIONS.get(section, section)
        if spelled[section_at] == "variants":
            spelled[section_at + 1 : section_at + 2] = path[section_at + 1 : section_at + 2]
    return tuple(spelled)


def _compose(text: str, name: str) -> yaml.Node | None:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node: yaml.Node | None = loader.get_single_node()
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SettingsError(f"{name}{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{name}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise SettingsError(f"{name}: nested too deeply for settings") from None
    finally:
        if loader is not None:
            loader.dispose()


def _value(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> Any:
    line = node.start_mark.line + 1
    if node.tag not in _PLAIN_TAGS:
        raise SettingsError(f"{name}:{line}: tags such as {node.tag.split(':')[-1]} are not supported")
    if len(path) > _DEEPEST:
        raise SettingsError(f"{name}:{line}: nested too deeply for settings")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, name)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            items.append(_value(item, (*path, index), lines, name))
        return items
    return _scalar(node, name)


def _mapping(node: yaml.MappingNode, path: KeyPath, lines: dict[KeyPath, int], name: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise SettingsError(f"{name}:{line}: a key must be plain text")
        inner = normalized((*path, str(key_node.value)))
        key = str(inner[-1])
        if inner in lines:
            raise SettingsError(f"{name}:{line}: {key_node.value} is given twice (first on line {lines[inner]})")
        lines[inner] = line
        values[key] = _value(value_node, inner, lines, name)
    return values


def _scalar(node: yaml.Node, name: str) -> Any:
    text = str(node.value)
    match node.tag.rsplit(":", 1)[-1]:
        case "bool":
            return text.lower() == "true"
        case "null":
            return None
        case "int":
            if len(text) > 25:
                raise SettingsError(f"{name}:{node.start_mark.line + 1}: the number {text[:12]}… is too long")
            return int(text.replace("_", ""))
        case "float":
            return float(text.replace("_", ""))
    return text
