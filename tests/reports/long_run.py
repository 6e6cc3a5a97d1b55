"""A run of 200 iterations: two PPO runs, 128 held-out prompts, twelve long samples of each. As much as there is."""

import json
import random
from pathlib import Path
from typing import Any

from tests.reports.synthetic import THINGS, write_run

ITERATIONS, PROMPTS, WORDS = 200, 128, 50


def write_long_run(directory: Path) -> Path:
    """The synthetic run, drawn out."""
    write_run(directory)
    rng = random.Random(1)
    for phase in (directory / "ppo", directory / "arms" / "no-penalty"):
        _drawn_out(phase / "metrics.jsonl", rng)
        rollouts = [
            {
                "iteration": iteration, "prompt_id": f"t{prompt}", "prompt": f"Tell me about {prompt}.",
                "response": _text(rng), "finished": True, "score": 1.0, "gold": 0.5, "reference_kl": 1.0, "tokens": 80,
            }
            for iteration in range(ITERATIONS)
            for prompt in range(32)
        ]  # fmt: skip
        (phase / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rollouts))
    path = directory / "evaluation" / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()][:12]
    samples = [
        row | {"prompt_id": f"p{number}", "prompt": f"Tell a colleague about number {number}.", "response": _text(rng)}
        for number in range(PROMPTS)
        for row in rows
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in samples))
    return directory


def _drawn_out(path: Path, rng: random.Random) -> None:
    """The same course in ten times as many iterations, with the noise of each its own."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    drawn: list[dict[str, Any]] = []
    for step in range(1, ITERATIONS + 1):
        at = (step - 1) / (ITERATIONS - 1) * (len(rows) - 1)
        low, part = min(int(at), len(rows) - 2), at - min(int(at), len(rows) - 2)
        row = {
            key: (value * (1 - part) + rows[low + 1][key] * part) * (1 + rng.gauss(0, 0.02))
            for key, value in rows[low].items()
        }
        extra = {
            "ppo/reward_disagreement": 1 + 0.004 * step + rng.gauss(0, 0.05),
            "ppo/reward_disagreement_deviation": 0.2,
            "ppo/witness_score": 0.5 + rng.gauss(0, 0.1),
        }
        drawn.append(row | extra | {"step": step, "time": float(step)})
    path.write_text("".join(json.dumps(row) + "\n" for row in drawn))


def _text(rng: random.Random) -> str:
    return " ".join(rng.choices(THINGS, k=WORDS)) + "."
