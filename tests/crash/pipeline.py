"""A very small pipeline, and the checksums of all its final files."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.settings_text import settings_from_text

from triphase.demo.tiny import tiny_directory
from triphase.settings.schema import RunSettings

METHODS = ("lora", "full")
# Said by the clock, not by the run; the sum of summary.json covers such values.
_OF_THE_CLOCK = ("time", "seconds", "peak_gb", "created_at", "leased_at", "at", "sha256")


def settings(output: Path, method: str = "lora") -> RunSettings:
    """A run of every step: SFT (LoRA, or every weight), labels, reward model, PPO, a variant, evaluation.

    The main run steers its KL; the variant passes its KL budget at once, so that it ends before its last iteration.
    """
    data = output / "data"
    if not data.is_dir():
        _write_data(data)
    return settings_from_text(f"""
name: small
output: {output / "runs"}
threads: 1
model: {{name: "embedded:tiny", dtype: float32, max_length: 48}}
adapters: {{layers: {1 if method == "lora" else "all"}, rank: 4, alpha: 8}}
data:
  demonstrations: [{{path: {data}/demonstrations.jsonl, kind: domain}}]
  prompts: [{{path: {data}/prompts.jsonl}}]
sft: {{method: {method}, epochs: 1, batch_size: 8, optimizer: {{learning_rate: 3e-3}}}}
sampling: {{responses_per_prompt: 3, max_response_tokens: 6, batch_size: 64}}
labeling: {{source: simulated, labelers: 3}}
reward:
  epochs: 2
  batch_size: 4
  calibration_samples: 24
  require_better_than_chance: false
  optimizer: {{learning_rate: 3e-3}}
ppo:
  iterations: 3
  batch_size: 8
  minibatch_size: 4
  epochs: 2
  max_response_tokens: 6
  kl_target: 0.5
  kl_horizon: 30
  optimizer: {{learning_rate: 3e-3}}
variants:
  stopped: {{kl_budget: 1.0e-9, iterations: 4}}
evaluation: {{gold: grammar, samples_per_prompt: 2}}
checkpoints: {{every_steps: 2}}
""")


def digests(run: Path) -> dict[str, str]:
    """The checksums of everything that a run must end with, without times."""
    found = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for final in run.glob("**/final")
        for path in sorted(final.rglob("*"))
        if path.is_file()
    }
    for path in sorted([*run.glob("**/*.jsonl"), *run.glob("**/*.json")]):
        name = str(path.relative_to(run))
        if (
            "/final/" not in name
            and "checkpoints/" not in name
            and path.name not in ("timings.json", "log.jsonl", "plan.json", "sums.json")
        ):
            found[name] = _sum([_timeless(value) for value in _values(path)])
    for parent in sorted(run.glob("**/checkpoints")):
        newest = max(path for path in parent.iterdir() if path.name.isdigit())
        found[str(newest.relative_to(run))] = _sum(sorted(_sum(path.read_bytes()) for path in newest.iterdir()))
    return found | {f"labels.sqlite/{table}": _sum(rows) for table, rows in _tables(run / "labels.sqlite")}


def leftovers(run: Path) -> list[str]:
    """What a killed process left behind and the next one should have cleared."""
    names = [*run.rglob("*.part"), *run.rglob("*.old")]
    return sorted(str(path.relative_to(run)) for path in names)


def _values(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not _is_of_the_clock(key)}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _is_of_the_clock(name: str) -> bool:
    return name in _OF_THE_CLOCK or "seconds_" in name


def _tables(path: Path) -> Iterator[tuple[str, list[Any]]]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        for table in ("prompts", "responses", "rankings", "labelers", "items", "assignments"):
            rows = [_timeless(dict(row)) for row in connection.execute(f"SELECT * FROM {table}")]  # noqa: S608
            yield table, sorted(rows, key=repr)
    connection.close()


def _sum(value: Any) -> str:
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _write_data(directory: Path) -> None:
    source = tiny_directory()
    directory.mkdir(parents=True)
    demonstrations = (source / "demonstrations.jsonl").read_text().splitlines(keepends=True)
    (directory / "demonstrations.jsonl").write_text("".join(demonstrations[:48]))
    prompts = (source / "prompts.jsonl").read_text().splitlines(keepends=True)
    (directory / "prompts.jsonl").write_text("".join(prompts[:12] + prompts[-4:]))
