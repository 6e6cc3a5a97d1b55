"""A whole run in a few seconds: the tiny model, a handful of demonstrations and prompts, two iterations of PPO."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triphase.demo.tiny import tiny_directory
from triphase.monitoring.progress import SilentProgress
from triphase.runs.session import Run, prepare
from triphase.settings.schema import RunSettings


def write_data(folder: Path) -> None:
    """Demonstrations and prompts, the first ones of the tiny task, next to the runs."""
    folder.mkdir(parents=True, exist_ok=True)
    source = tiny_directory()
    lines = (source / "demonstrations.jsonl").read_text().splitlines()[:96]
    (folder / "demonstrations.jsonl").write_text("\n".join(lines) + "\n")
    prompts = [json.loads(line) for line in (source / "prompts.jsonl").read_text().splitlines()]
    chosen = [row for row in prompts if row["split"] == "train"][:16] + prompts[-6:]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))


def settings(folder: Path, *, method: str = "full", output: str = "runs", **changes: Any) -> RunSettings:
    """The settings of such a run below ``folder``; data must be there (see `write_data`)."""
    optimizer = {"learning_rate": 3e-3, "schedule": "linear"}
    values: dict[str, Any] = {
        "name": "small",
        "output": str(folder / output),
        "threads": 1,
        "model": {"name": "embedded:tiny", "dtype": "float32", "max_length": 64},
        "adapters": {"layers": "all", "rank": 4},
        "data": {
            "demonstrations": [{"path": str(folder / "demonstrations.jsonl")}],
            "prompts": [{"path": str(folder / "prompts.jsonl")}],
        },
        "sft": {"method": method, "epochs": 2, "batch_size": 32, "optimizer": optimizer},
        "sampling": {"responses_per_prompt": 3, "max_response_tokens": 10, "batch_size": 32},
        "labeling": {"source": "simulated", "overlap_share": 0.5},
        # Six held-out prompts show nothing of a reward model; what stops a run has tests of its own.
        "reward": {"epochs": 2, "batch_size": 8, "optimizer": optimizer, "require_better_than_chance": False},
        "ppo": {"iterations": 2, "batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10},
        "evaluation": {"gold": "grammar", "samples_per_prompt": 2},
        "checkpoints": {"every_steps": 2},
    }
    return RunSettings.model_validate({**values, **changes})


def ppo_alone(folder: Path, *, ppo: Mapping[str, Any], **changes: Any) -> RunSettings:
    """The settings of PPO from the unchanged model, scored by a function, with a quick evaluation."""
    base = settings(folder).model_dump(mode="json")["ppo"]
    fixed = {
        "sft": {"method": "none"},
        "labeling": {"source": "none"},
        "ppo": {**base, "scorer": {"function": "tests.rewards.functions:lengths"}, **ppo},
        "evaluation": {"gold": "grammar", "samples_per_prompt": 1, "max_prompts": 2},
    }
    return settings(folder, **{**fixed, **changes})


def do(chosen: RunSettings, *steps: Any, stop: bool = False) -> Run:
    """Prepare the run and do its steps; ``stop`` asks for an end after the first step of a phase."""
    with prepare(chosen, SilentProgress()) as run:
        run.stop.asked = stop
        for step in steps:
            step(run)
        return run


def files_of(folder: Path, pattern: str = "**/final/**/*") -> dict[str, bytes]:
    """Every file that matches, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern)) if path.is_file()}
