"""Common arguments of commands: a configuration, overrides of settings, a run, a checkpoint."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from triphase.errors import RunError, SettingsError
from triphase.records.paths import refuse_pipes
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.schema import RunSettings

Config = Annotated[Path, Parameter(help="A settings file (YAML) or a run directory.")]
RunPath = Annotated[Path, Parameter(help="A run directory, for example runs/demo.")]
Checkpoint = Annotated[
    int | Literal["best"] | None,
    Parameter(help="The PPO checkpoint to use: an iteration, or best; the last one by default."),
]
Overrides = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]

_PAGES_OF_SEVERAL = ("sweep.html", "study.html")


def settings_of(config: Path, overrides: tuple[str, ...]) -> RunSettings:
    """The settings of a file or run directory, overridden by ``--name value`` or ``--name=value``."""
    if os.path.isdir(config) and os.path.isfile(config / RUN_CONFIG):
        refuse_pipes(config)
    return load_settings(config, parse_overrides(overrides))


def parse_overrides(words: tuple[str, ...]) -> dict[str, str]:
    """``--ppo.kl-coefficient 0.02`` and ``--ppo.kl-coefficient=0.02`` as name → text."""
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--") or word == "--":
            raise SettingsError(f"{word}: unexpected; settings are given as --ppo.kl-coefficient 0.02")
        name, equals, text = word[2:].partition("=")
        value = text if equals else next(rest, None)
        if value is None:
            raise SettingsError(f"--{name}: needs a value, for example --{name} 1")
        if name in found:
            raise SettingsError(f"--{name}: is given twice")
        found[name] = value
    return found


def require_run(path: Path) -> Path:
    """``path``, which must be the directory of a run.

    Raises:
        RunError: it is not.
    """
    if not os.path.isfile(path / RUN_CONFIG):  # False for a name that is too long
        page = next((path / name for name in _PAGES_OF_SEVERAL if os.path.isfile(path / name)), None)
        if page is not None:
            raise RunError(f"{path}: has several runs, which {page} compares; give one of them: {path}/NAME")
        raise RunError(f"{path}: is not a run directory (no {RUN_CONFIG} in it); run directories are runs/NAME")
    refuse_pipes(path)
    return path
