"""config.yaml of a run: its settings, and everything else that its numbers depend on."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from triphase import __version__
from triphase.errors import RunError
from triphase.settings.renamed import with_new_sections
from triphase.settings.schema import RunSettings

_PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy", "pydantic", "sqlalchemy", "torchao",
    "bitsandbytes",
)  # fmt: skip


def day_begun(run: Path) -> str:
    """The date (YYYY-MM-DD) on which the run in a directory was started; today if there is none."""
    path = run / "config.yaml"
    if not path.is_file():
        return date.today().isoformat()
    kept = read_config(path).get("begun")
    # A run of an older version has the date of its configuration, which is written once.
    return str(kept) if kept else date.fromtimestamp(path.stat().st_mtime).isoformat()


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on."""
    found = {"python": platform.python_version(), "triphase": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(
    settings: RunSettings, plain: dict[str, Any], fingerprints: Mapping[str, str], begun: str
) -> dict[str, Any]:
    """The `config.yaml` of a run that starts now: its settings, and where its numbers come from."""
    return {
        "settings": plain,
        "versions": versions(),
        "git_revision": git_revision(),
        "begun": begun,
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": settings.threads or len(os.sched_getaffinity(0)),
        },
        "data_fingerprints": dict(fingerprints),
    }


def as_yaml(config: Mapping[str, Any]) -> str:
    """`config.yaml` as text."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)


def read_config(path: Path) -> dict[str, Any]:
    """The `config.yaml` of a run directory, with the sections of its settings under their current names.

    Raises:
        RunError: it cannot be read.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({error}); restore it, or choose another name (--name)") from error
    found = found if isinstance(found, dict) else {}
    parts = [found.get(name, {}) for name in ("settings", "versions", "data_fingerprints", "machine")]
    if not parts[0] or not all(isinstance(part, dict) for part in parts):
        raise RunError(f"{path} does not contain the settings of a run; restore it, or choose another name (--name)")
    try:
        return {**found, "settings": with_new_sections(parts[0])}
    except ValueError as error:
        raise RunError(f"{path}: {error}; restore it, or choose another name (--name)") from None


def git_revision() -> str | None:
    """The commit that is checked out in the working directory; None outside a repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
