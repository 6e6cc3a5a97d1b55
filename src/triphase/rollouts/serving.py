"""The command that starts a vLLM server for the rollouts of a run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from triphase.errors import SettingsError
from triphase.rollouts.vllm_server import rank_limit
from triphase.settings.schema import RunSettings
from triphase.settings.services import RolloutSettings

SERVER_ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # the trainer continues past max_position_embeddings too, with a note
    "VLLM_NO_USAGE_STATS": "1",
}
_OF_THIS_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
_CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"
_CPU_CACHE_GIB = 2.0
_LOOK = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
_LOOK_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Base:
    """The base as a server loads it.

    Attributes:
        name: a directory, or a hub id.
        dtype: vLLM's name of it; `auto` leaves it to vLLM.
        on_cpu: whether the server runs on a CPU.
    """

    name: str
    dtype: str = "auto"
    on_cpu: bool = False


def server_command(settings: RunSettings, base: Base, host: str, port: int) -> list[str]:
    """The command that starts a server."""
    model, rollouts = settings.model, settings.rollouts
    words = [python_of(rollouts), "-m", "vllm.entrypoints.openai.api_server", "--model", base.name]
    words += ["--host", host, "--port", str(port), "--dtype", base.dtype]
    words += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(rank_limit(settings.adapters.rank))]
    words += ["--max-model-len", str(model.max_length)]
    words += ["--logprobs-mode", "processed_logprobs"]  # at the temperature of the sample, as the trainer's
    words += ["--generation-config", "vllm", "--disable-uvicorn-access-log"]
    words += ["--enforce-eager"] if base.on_cpu else []
    words += ["--revision", model.revision] if model.revision is not None else []
    words += ["--trust-remote-code"] if model.trust_remote_code else []
    return [*words, *rollouts.arguments]


def server_environment(settings: RolloutSettings, *, on_cpu: bool) -> dict[str, str]:
    """This process's environment with the variables that a server needs, and without those of this Python alone."""
    kept = {name: value for name, value in os.environ.items() if settings.python is None or name not in _OF_THIS_PYTHON}
    cache = {_CPU_CACHE: f"{_CPU_CACHE_GIB:g}"} if on_cpu and _CPU_CACHE not in kept else {}
    return {**kept, **SERVER_ENVIRONMENT, **cache}


def cpu_cache_bytes() -> float:
    """The cache of a server on a CPU: that of the environment, in GiB, or the default of a run."""
    try:
        return float(os.environ[_CPU_CACHE]) * 2**30
    except (KeyError, ValueError):
        return _CPU_CACHE_GIB * 2**30


def python_of(settings: RolloutSettings) -> str:
    """The Python that runs the servers."""
    if settings.python is None:
        return sys.executable
    name = str(Path(settings.python).expanduser())
    return shutil.which(name) or name


def require_vllm(settings: RolloutSettings, environment: Mapping[str, str] | None = None) -> None:
    """Check that vLLM is installed where the servers are to run.

    Raises:
        SettingsError: it is not, or there is no such Python.
    """
    python = python_of(settings)
    setting = f"rollouts.python: {python}"
    if shutil.which(python) is None:
        raise SettingsError(f"{setting} is not an executable; give the bin/python of vLLM's environment")
    given = server_environment(settings, on_cpu=False) if environment is None else environment
    try:
        done = subprocess.run(  # noqa: S603 - the program that the settings name
            [python, "-c", _LOOK], env=dict(given), timeout=_LOOK_SECONDS, capture_output=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"{setting} cannot be run ({error}); give the bin/python of vLLM's environment") from None
    if done.returncode:
        remedy = "install vllm there, or give the bin/python of the environment that has it"
        if settings.python is None:
            remedy = "set rollouts.python to the bin/python of an environment that has it (docs/servers.md)"
        raise SettingsError(f"{setting} has no package vllm; {remedy}")
