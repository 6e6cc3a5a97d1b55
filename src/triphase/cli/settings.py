"""Explains settings: meaning, allowed values and default; or lists those of a section."""

import difflib
import json as json_text
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from triphase.errors import SettingsError
from triphase.settings.fields import SettingField, settings_fields
from triphase.settings.renamed import SECTIONS, old_names

_MOST = 6


def settings(
    key: Annotated[str, Parameter(help="A setting, a section, or part of a name: ppo.kl_coefficient, ppo, kl.")] = "",
    /,
    *,
    json: Annotated[bool, Parameter(help="Print one JSON document.")] = False,
) -> None:
    """Explain a setting, or list those of a section.

    Example: triphase settings ppo.kl_coefficient
    """
    found = _named(key)
    if json:
        print(json_text.dumps([_plain(field) for field in found], indent=1, ensure_ascii=False))
        return
    console = Console(soft_wrap=True, highlight=False)
    if len(found) == 1:
        for line in _explained(found[0]):
            console.print(escape(line))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("setting", "default", "meaning"):
        table.add_column(heading, no_wrap=heading != "meaning")
    for field in found:
        table.add_row(*(escape(cell) for cell in (_name(field), field.default or "must be given", _first(field))))
    console.print(table)


def _named(key: str) -> list[SettingField]:
    """The settings that ``key`` refers to: one, or those of a section, of that last name, or with it in a name.

    Raises:
        SettingsError: there are none.
    """
    wanted = key.strip().strip(".").replace("-", "_").removeprefix("__")
    copied = wanted.startswith(("data.prompts", "data.preferences"))
    every = [field for field in settings_fields() if copied or not _is_copy(field)]
    if not wanted:
        return every
    names = {_name(field): field for field in every}
    if not wanted.endswith("[]") and (one := _at(wanted)) is not None:
        return [one]
    below = [field for name, field in names.items() if name.startswith((f"{wanted}.", f"{wanted}[]."))]
    last = [field for name, field in names.items() if name.rpartition(".")[2] == wanted]
    if found := below or last or [field for name, field in names.items() if wanted in name]:
        return found
    words = {**names, **{name.rpartition(".")[2]: field for name, field in names.items()}}
    near = difflib.get_close_matches(wanted, words, n=_MOST, cutoff=0.5)
    hint = f"did you mean {', '.join(dict.fromkeys(_name(words[word]) for word in near))}?" if near else (
        "`triphase settings` lists all"
    )  # fmt: skip
    raise SettingsError(f"{key}: unknown setting; {hint}")


def _at(wanted: str) -> SettingField | None:
    """The setting that is written so in a configuration: in an element of a list, in a variant, or by its old name."""
    parts = [part for part in wanted.replace("[", ".").replace("]", "").split(".") if part and not part.isdecimal()]
    parts[:1] = [SECTIONS.get(part, part) for part in parts[:1]]
    if parts[:1] == ["variants"] and len(parts) > 2:
        parts = ["ppo", *parts[2:]]
    if parts[:1] == ["ppo"] and len(parts) > 1:
        parts[1] = old_names({parts[1]: None}).get(parts[1], parts[1])
    return {_name(field).replace("[]", ""): field for field in settings_fields()}.get(".".join(parts))


def _is_copy(field: SettingField) -> bool:
    """Whether a setting is in a section that repeats another (the sources of prompts and of preferences)."""
    return field.path[:2] in (("data", "prompts[]"), ("data", "preferences[]"))


def _name(field: SettingField) -> str:
    return ".".join(str(key) for key in field.path)


def _first(field: SettingField) -> str:
    words = " ".join(field.meaning.split())
    return words if len(words) <= 90 else f"{words[:89]}…"


def _explained(field: SettingField) -> list[str]:
    name = _name(field)
    option = name.replace("[]", ".0").replace("_", "-")
    inside = [f"  the settings of each: triphase settings '{name}[]'"] if "sections" in field.allowed else []
    return [
        name,
        f"  {' '.join(field.meaning.split())}",
        *inside,
        f"  allowed: {field.allowed.replace('`', '')}",
        f"  default: {field.default or 'none; it must be given'}",
        f"  on the command line: --{option} VALUE",
    ]


def _plain(field: SettingField) -> dict[str, Any]:
    return {
        "name": _name(field), "meaning": " ".join(field.meaning.split()), "allowed": field.allowed.replace("`", ""),
        "default": field.default or None,
    }  # fmt: skip
