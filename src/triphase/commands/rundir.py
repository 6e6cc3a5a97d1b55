"""The run directory: one configuration, one holder, timings, and what was found where.

runs/NAME/
  config.yaml      resolved settings, versions, seeds, git revision, data fingerprints
  labels.sqlite    prompts, responses, rankings, audit
  sft/ reward/ ppo/ arms/NAME/    checkpoints/STEP/, final/, metrics.jsonl, samples.jsonl
  evaluation/ labelling.json timings.json summary.json report.html
"""

import fcntl
import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from triphase import __version__
from triphase.commands.memory import memory_errors, peak_gb, restart_peak
from triphase.errors import RunError
from triphase.records.files import (
    clear_leftovers,
    disk_errors,
    fingerprint,
    make_directory,
    write_atomically,
    write_json,
)
from triphase.settings.loading import expanded
from triphase.settings.schema import RunSettings

# What may differ between two starts of one run: it changes no result.
_FREE = ("output", "threads", "model.recompute_activations")
# These bound memory and change rounding at most: a run that ran out of memory must be able to go on with less.
_BOUNDS = ("microbatch_tokens", "trunk_cache_gb", "trunk_file_gb")
# Where a server is and how it is asked may differ too; whether there is one may not.
_SERVERS = ("rollouts", "scorer")
_log = logging.getLogger(__name__)
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy", "pydantic", "sqlalchemy")


class RunDirectory:
    """A run directory that this process holds.

    Attributes:
        notes: what differs from the run as it was begun and may, for the log.
    """

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.path = expanded(settings.output) / settings.name
        self.process_bytes: float | None = None
        self.notes: list[str] = []
        self._lock: int | None = None
        self._peak = 0.0

    @contextmanager
    def held(self) -> Iterator["RunDirectory"]:
        """Hold the directory; a second process is refused, the lock of a dead one is void.

        Raises:
            RunError: another process holds it, or it belongs to another configuration.
        """
        make_directory(self.path)
        lock = self.path / ".lock"
        with disk_errors(lock):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode(errors="replace").strip()
                raise RunError(
                    f"{self.path} is held by {holder or 'another process'}; wait for it, stop it, or choose another "
                    "name (--name)"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
            clear_leftovers(self.path)
            self._write_config()
            self._lock = descriptor
            yield self
        finally:
            self._lock = None
            os.close(descriptor)

    def _write_config(self) -> None:
        path = self.path / "config.yaml"
        fingerprints = _fingerprints(self.settings)
        if path.exists():
            kept = read_config(path)
            self._require_same(_completed(kept.get("settings") or {}), self.settings.model_dump(mode="json"), path)
            self._require_same_data(kept.get("data_fingerprints") or {}, fingerprints)
            return
        config = {
            "settings": self.settings.model_dump(mode="json"),
            "versions": versions(),
            "git_revision": _git_revision(),
            "begun": self.begun,
            "machine": {
                "system": platform.platform(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "threads": self.settings.threads or len(os.sched_getaffinity(0)),
            },
            "data_fingerprints": fingerprints,
        }
        write_atomically(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120))

    def _require_same(self, kept: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
        for key, old, new in _differences(kept, wanted):
            if key == "sampling.batch_size" or key.rpartition(".")[2] in _BOUNDS:
                self.notes.append(f"{key} was {old!r} when this run was begun and is {new!r} now: rounding may differ")
            elif key not in _FREE and not _is_of_a_server(key, old, new):
                raise RunError(
                    f"{path} belongs to another configuration: {key} is {old!r} there and {new!r} here; choose "
                    f"another name (--name), or set {key} back"
                )

    def _require_same_data(self, kept: Mapping[str, str], found: Mapping[str, str]) -> None:
        for name, old in kept.items():
            if name in found and found[name] != old:
                raise RunError(
                    f"{name} has changed since {self.path} was begun; restore the file, or choose another name (--name)"
                )

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """One phase: its seconds and the peak memory go to `timings.json`, its begin and end to the log.

        Raises:
            RunError: the block ran out of memory; the message says which setting to lower.
        """
        start = time.perf_counter()
        self.restart_peak()
        _log.info("%s begins", phase)
        try:
            with memory_errors(phase, lambda: self._planned(phase)):
                yield
        except BaseException:
            with suppress(RunError):  # the error of the block is the one to be told
                self._add_seconds(phase, time.perf_counter() - start)
            raise
        seconds = time.perf_counter() - start
        self._add_seconds(phase, seconds)
        _log.info("%s ends after %.1f s", phase, seconds)

    def _add_seconds(self, phase: str, seconds: float) -> None:
        timings = self.timings()
        timings[phase] = timings.get(phase, 0.0) + seconds
        peaks = timings.setdefault("peaks_gb", {})
        peaks[phase] = round(max(peak_gb(), peaks.get(phase, 0.0)), 3)
        timings["peak_gb"] = round(max(peak_gb(), self._peak, timings.get("peak_gb", 0.0)), 3)
        write_json(self.path / "timings.json", timings)

    @property
    def is_held(self) -> bool:
        """Whether this process works on it, and does not only read it."""
        return self._lock is not None

    @property
    def begun(self) -> str:
        """The day (YYYY-MM-DD) on which the run was begun, which is today where it has not been."""
        return day_begun(self.path)

    def restart_peak(self) -> None:
        """Count the peak of memory anew: what opening a model took is not what its phase takes."""
        self._peak = max(self._peak, restart_peak())

    def _planned(self, phase: str) -> str | None:
        from triphase.commands.plan import shortage_of

        return shortage_of(self.settings, phase, self.process_bytes)

    def timings(self) -> dict[str, Any]:
        """Seconds of each phase so far, ``peak_gb`` of all, and ``peaks_gb`` of each phase once its model is open."""
        path = self.path / "timings.json"
        return json.loads(path.read_text()) if path.exists() else {}


def day_begun(run: Path) -> str:
    """The day (YYYY-MM-DD) on which the run in a directory was begun; today where there is none."""
    path = run / "config.yaml"
    if not path.is_file():
        return date.today().isoformat()
    kept = read_config(path).get("begun")
    # A run of an older version has the day of its configuration, which is written once.
    return str(kept) if kept else date.fromtimestamp(path.stat().st_mtime).isoformat()


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "triphase": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _fingerprints(settings: RunSettings) -> dict[str, str]:
    data = settings.data
    paths = [Path(source.path) for source in (*data.demonstrations, *data.prompts, *data.preferences)]
    return {
        str(path): fingerprint(path) for path in paths if os.path.isfile(path)
    }  # isfile: False for a name that is too long


def _differences(kept: Any, wanted: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(kept, Mapping) and isinstance(wanted, Mapping):
        for key in [*wanted, *(key for key in kept if key not in wanted)]:
            yield from _differences(kept.get(key), wanted.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif kept != wanted:
        yield prefix, kept, wanted


def _is_of_a_server(key: str, old: Any, new: Any) -> bool:
    section, _, name = key.rpartition(".")
    moved = not name.startswith("address") or (bool(old) and bool(new))
    return section.rpartition(".")[2] in _SERVERS and moved


def _completed(kept: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with the defaults of settings that its version did not have yet."""
    try:
        return RunSettings.model_validate(kept).model_dump(mode="json")
    except ValueError:
        return kept


def read_config(path: Path) -> dict[str, Any]:
    """The `config.yaml` of a run directory.

    Raises:
        RunError: it cannot be read.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({error}); restore it, or choose another name (--name)") from error
    return found if isinstance(found, dict) else {}


def _git_revision() -> str | None:
    try:
        command = ["git", "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
