"""The reference of settings in docs/settings.md, generated from the schema.

python -m triphase.settings.documentation docs/settings.md     writes it between its two markers
"""

import sys
from pathlib import Path

from triphase.settings.fields import SettingField, settings_fields
from triphase.settings.schema import RunSettings

BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def settings_reference() -> str:
    """Every setting with its meaning, allowed values and default, section by section, as Markdown."""
    sections: dict[str, list[SettingField]] = {}
    for field in settings_fields():
        sections.setdefault(".".join(str(key) for key in field.path[:-1]), []).append(field)
    tables: dict[str, list[str]] = {}  # equal sections share one table
    for name in sorted(sections, key=_place):
        tables.setdefault("\n".join(_row(field) for field in sections[name]), []).append(name)
    parts = []
    for rows, names in tables.items():
        title = ", ".join(f"`{name}`" for name in names) if names != [""] else "The top of the file"
        parts.append(f"### {title}\n\n| setting | meaning | allowed | default |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def with_reference(page: str) -> str:
    """``page`` with the reference between its markers updated."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise ValueError(f"the page needs the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{settings_reference()}\n{END}{after}"


def _place(section: str) -> tuple[int, str]:
    """The top level first, then the sections in the order of the schema."""
    names = list(RunSettings.model_fields)
    return (names.index(section.split(".")[0].removesuffix("[]")) if section else -1, section)


def _row(field: SettingField) -> str:
    cells = (
        f"`{field.path[-1]}`",
        field.meaning,
        field.allowed,
        f"`{field.default}`" if field.default else "must be given",
    )
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_reference(target.read_text(encoding="utf-8")), encoding="utf-8")
