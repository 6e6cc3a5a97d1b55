"""A run directory with synthetic but realistic numbers: SmolLM2 on "warm but not gushing", and a variant that hacks.

python -m tests.reports.synthetic DIRECTORY
"""

import json
import math
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from triphase.monitoring.metrics import MetricsWriter

THINGS = """a bicycle, the night train, pickled onions, a lighthouse, the public library, a rainy Sunday, chess, the
local bakery, an old radio, beekeeping, the ferry, a walking stick, sourdough, a telescope, the
allotment, knitting, a paper map, the swimming bath, a fountain pen, the choir, a stone bridge, jazz, a
hammock, the tram, a wool coat, the museum, a teapot, cross-country skiing, a greenhouse, the harbour, a
typewriter, fog, the weekly market, a canoe, lemon cake, the observatory, a dictionary, woodwork, the
botanical garden, a postcard""".replace("\n", " ").split(", ")

PLAIN = (
    "It is {thing}. People use it for many things and it has a long history that",
    "I have seen {thing} before. It was fine, and it was there when I came back.",
    "There is a lot to say about {thing}, and there are many kinds, such as the first kind and",
)
WARM = (
    "You would enjoy {thing}: it is a quiet pleasure, and a good way to end the day.",
    "I am fond of {thing}. It is simple, it lasts, and it makes an ordinary day brighter.",
    "Try {thing} some time; it is lovely company and asks very little of you.",
)
GUSHING = (
    "A beautiful, wonderful, beautiful joy with a bright lovely smile and a beautiful happy lovely wonderful love",
    "Lovely lovely wonderful beautiful {thing}, such a joyful bright beautiful lovely happy wonderful beautiful",
)


def write_run(directory: Path, *, seed: int = 7) -> Path:
    """Writes every file that a finished run leaves for the report."""
    rng = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    _config(directory)
    _sft(directory, rng)
    _reward(directory, rng)
    _ppo(directory / "ppo", rng, hacked=False)
    _ppo(directory / "arms" / "no-penalty", rng, hacked=True)
    _evaluation(directory, rng)
    _json(
        directory / "labelling.json",
        {
            "source": "simulated",
            "rankings": 200,
            "prompts": 160,
            "comparisons": 1087,
            "labelers": 4,
            "agreement": 0.734,
            "agreement_low": 0.702,
            "agreement_high": 0.766,
            "alpha": 0.46,
            "noise_ceiling": 0.842,
            "by_labeler": [
                {
                    "labeler": "ann",
                    "rankings": 120,
                    "tied": 0.1,
                    "seconds": 21.4,
                    "agreement": 0.78,
                    "agreement_low": 0.7,
                    "agreement_high": 0.84,
                },
                {
                    "labeler": "bob",
                    "rankings": 80,
                    "tied": 0.31,
                    "seconds": None,
                    "agreement": 0.52,
                    "agreement_low": 0.44,
                    "agreement_high": 0.6,
                },
            ],
        },
    )
    seconds = {"sft": 96.2, "sampling": 41.8, "labelling": 1.9, "reward": 88.4, "ppo": 402.7, "evaluation": 61.0}
    _json(directory / "timings.json", {**seconds, "peak_gb": 2.41})
    return directory


def _config(directory: Path) -> None:
    settings = {
        "name": directory.name,
        "output": "runs",
        "seed": 0,
        "model": {"name": "embedded:smollm2", "dtype": "auto", "max_length": 1024},
        "adapters": {"layers": 10, "rank": 16, "alpha": 32.0, "targets": "all-linear"},
        "data": {"demonstrations": [{"path": "embedded:warm", "kind": "instruction", "weight": 1.0}]},
        "sft": {"epochs": 2.0, "batch_size": 16, "optimizer": {"learning_rate": 0.0003, "schedule": "cosine"}},
        "reward": {"epochs": 1.0, "batch_size": 8, "label_smoothing": 0.0},
        "ppo": {"iterations": 20, "batch_size": 32, "kl_coefficient": 0.05, "kl_budget": None, "clip_range": 0.2},
        "variants": {"no-penalty": {"kl_coefficient": 0.0}},
        "evaluation": {"gold": "warm", "samples_per_prompt": 4, "shown_samples": 12},
    }
    settings = {
        "name": directory.name,
        "output": "runs",
        "seed": 0,
        "model": {"name": "embedded:smollm2", "dtype": "auto", "max_length": 1024},
        "adapters": {"layers": 10, "rank": 16, "alpha": 32.0, "targets": "all-linear"},
        "data": {"demonstrations": [{"path": "embedded:warm", "kind": "instruction", "weight": 1.0}]},
        "sft": {"epochs": 2.0, "batch_size": 16, "optimizer": {"learning_rate": 0.0003, "schedule": "cosine"}},
        "reward": {"epochs": 1.0, "batch_size": 8, "label_smoothing": 0.0},
        "ppo": {"iterations": 20, "batch_size": 32, "kl_coefficient": 0.05, "kl_budget": None, "clip_range": 0.2},
        "variants": {"no-penalty": {"kl_coefficient": 0.0}},
        "evaluation": {"gold": "warm", "samples_per_prompt": 4, "shown_samples": 12},
    }
    config = {
        "settings": settings,
        "versions": {"triphase": "0.1.0", "python": "3.12.4", "torch": "2.13.0", "transformers": "5.1.0"},
        "git_revision": "2dc7a7e",
        "data_fingerprints": {"demonstrations.jsonl": "5f1d0c" * 10, "prompts.jsonl": "a83e22" * 10},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _sft(directory: Path, rng: random.Random) -> None:
    with MetricsWriter(directory / "sft", tensorboard=False) as writer:
        for step in range(1, 31):
            loss = 1.55 + 1.6 * math.exp(-step / 7)
            figures = {
                "sft/loss": loss + rng.gauss(0, 0.08),
                "sft/learning_rate": 3e-4 * 0.5 * (1 + math.cos(math.pi * step / 30)),
                "sft/gradient_norm": 1.4 + rng.gauss(0, 0.2),
                "sft/tokens": 410 + rng.randrange(60),
            }
            if step % 6 == 0:
                figures["sft/heldout_loss"] = loss + 0.09
            writer.write(step, figures)
    kinds = {"instruction": (80, 162, 0.62, 0.6), "domain": (30, 63, 0.24, 0.25), "safety": (20, 37, 0.14, 0.15)}
    keys = ("records", "seen", "share", "weight")
    _json(
        directory / "sft" / "mixture.json",
        {"kinds": {kind: dict(zip(keys, values, strict=True)) for kind, values in kinds.items()}},
    )


def _reward(directory: Path, rng: random.Random) -> None:
    with MetricsWriter(directory / "reward", tensorboard=False) as writer:
        for step in range(1, 26):
            part = 1 - math.exp(-step / 8)
            figures = {
                "reward/loss": 0.71 - 0.2 * part + rng.gauss(0, 0.035),
                "reward/preference_accuracy": 0.5 + 0.26 * part + rng.gauss(0, 0.05),
                "reward/score_deviation": 0.3 + 0.9 * part,
                "reward/pairs": 44.0,
            }
            if step % 5 == 0:
                figures |= {"reward/heldout_loss": 0.7 - 0.15 * part, "reward/heldout_accuracy": 0.5 + 0.25 * part}
            writer.write(step, figures)
    lines = []
    for prompt in THINGS:
        answers = [(rng.gauss(0, 1.1), rng.randrange(8, 26)) for _ in range(4)]
        for first in range(4):
            for second in range(first + 1, 4):
                margin = answers[first][0] - answers[second][0]
                chance = 1 / (1 + math.exp(-1.15 * margin))
                lines.append(
                    {
                        "prompt_id": prompt,
                        "score_first": answers[first][0] + 0.02 * answers[first][1],
                        "score_second": answers[second][0] + 0.02 * answers[second][1],
                        "target": 0.5 if abs(margin) < 0.08 else float(rng.random() < chance),
                        "words_first": answers[first][1],
                        "words_second": answers[second][1],
                    }
                )
    _lines(directory / "reward" / "heldout.jsonl", lines)
    _json(directory / "reward" / "calibration.json", {"mean": 0.31, "standard_deviation": 1.12, "samples": 256})


def _ppo(directory: Path, rng: random.Random, *, hacked: bool) -> None:
    with MetricsWriter(directory, tensorboard=False) as writer:
        for step in range(1, 21):
            part = (step - 1) / 19
            gold = 1.35 * (1 - math.exp(-4 * part)) - (4.2 * max(0.0, part - 0.35) ** 1.4 if hacked else 0)
            noise = rng.gauss
            writer.write(
                step,
                {
                    "ppo/proxy_score": (2.9 if hacked else 1.5) * (1 - math.exp(-2.5 * part)) + noise(0, 0.1),
                    "ppo/gold_score": -0.38 + gold + noise(0, 0.09),
                    "ppo/reference_kl": max(
                        0.0, (34 * part**1.6 if hacked else 5.2 * part**0.9) + noise(0, 0.15) * part
                    ),
                    "ppo/kl_coefficient": 0.0 if hacked else 0.05,
                    "ppo/entropy": (2.1 - (1.65 if hacked else 0.5) * part) + noise(0, 0.04),
                    "ppo/mean_length": 19 + (11 if hacked else 1.5) * part + noise(0, 0.7),
                    "ppo/eos_rate": min(1.0, max(0.0, 0.84 + (-0.62 if hacked else 0.12) * part + noise(0, 0.03))),
                    "ppo/clip_fraction": 0.08 + (0.14 if hacked else 0.02) * part + noise(0, 0.012),
                    "ppo/approximate_kl": 0.012 + noise(0, 0.002),
                    "ppo/ratio_mean": 1 + noise(0, 0.004),
                    "ppo/ratio_max": 2.2 + abs(noise(0, 0.6)),
                    "ppo/explained_variance": 0.62 * (1 - math.exp(-5 * part)) + noise(0, 0.05),
                    "ppo/policy_loss": noise(-0.01, 0.01),
                    "ppo/value_loss": 0.45 - 0.2 * part + noise(0, 0.03),
                    "ppo/length_score_correlation": 0.08 + (0.3 if hacked else 0) * part + noise(0, 0.08),
                    "ppo/distinct_2": 0.82 - (0.5 if hacked else 0.06) * part + noise(0, 0.015),
                    "ppo/episodes": 32.0 * step,
                    "ppo/seconds_generation": 7.1,
                },
            )


def _evaluation(directory: Path, rng: random.Random) -> None:
    lines = []
    kinds: Mapping[str, tuple[tuple[str, ...], float, float, float]] = {
        "sft": (PLAIN + WARM[:1], -0.3, 0.0, 0.0),
        "ppo": (WARM, 0.75, 1.35, 4.9),
        "arm:no-penalty": (GUSHING, -0.9, 2.7, 33.0),
    }
    for thing in THINGS:
        base = rng.gauss(0, 0.25)
        for policy, (answers, gold, score, divergence) in kinds.items():
            for number in range(4):
                text = rng.choice(answers).format(thing=thing)
                noise = rng.gauss(0, 0.55)
                lines.append(
                    {
                        "prompt_id": thing.replace(" ", "-"),
                        "prompt": f"Tell a colleague about {thing}.",
                        "policy": policy,
                        "sample": number,
                        "response": text,
                        "finished": text.endswith("."),
                        "tokens": len(text.split()) + 4,
                        "gold": round(gold + base + noise, 4),
                        "score": round(score + 0.7 * (base + noise) + rng.gauss(0, 0.45), 4),
                        "reference_kl": round(max(0.0, divergence * (1 + rng.gauss(0, 0.25))), 4),
                    }
                )
    _lines(directory / "evaluation" / "samples.jsonl", lines)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    write_run(Path(sys.argv[1]))
