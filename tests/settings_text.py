"""Settings from a text instead of a file."""

from collections.abc import Mapping
from pathlib import Path

from triphase.settings.loading import settings_from
from triphase.settings.schema import RunSettings
from triphase.settings.source import parse_source


def settings_from_text(text: str, overrides: Mapping[str, str] | None = None, name: str = "settings") -> RunSettings:
    """As ``load_settings``; relative paths are taken from the working directory."""
    return settings_from(parse_source(text, name), overrides, Path.cwd())
