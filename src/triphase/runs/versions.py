"""Versions of the packages that Triphase uses; torch is not needed."""

import importlib.metadata
import os
import platform
from typing import Any

from triphase import __version__

PACKAGES = (
    "torch", "transformers", "peft", "datasets", "pyarrow", "huggingface_hub", "fastapi", "tensorboard", "wandb",
    "trackio", "mlflow", "torchao", "bitsandbytes",
)  # fmt: skip


def versions() -> dict[str, Any]:
    """Of Triphase, Python, the system, and of each optional package; None if not installed."""
    return {
        "triphase": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
