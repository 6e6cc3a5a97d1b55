"""The settings of `triphase demo`: shipped as ordinary configuration files, which users can copy and change."""

from pathlib import Path

from triphase.demo.tiny import tiny_directory
from triphase.settings.loading import settings_from
from triphase.settings.schema import RunSettings
from triphase.settings.source import read_source

_HERE = Path(__file__).parent


def demo_settings(*, tiny: bool, output: str = "runs", seed: int = 0) -> RunSettings:
    """The settings of the demo, or of its tiny form, with the paths of the shipped (or generated) data."""
    name, base = ("tiny.yaml", tiny_directory()) if tiny else ("demo.yaml", _HERE)
    source = read_source(_HERE / name)
    settings = settings_from(source, None, base)
    return settings.model_copy(update={"output": output, "seed": seed})
