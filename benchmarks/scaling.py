"""What an iteration of PPO costs as it grows: against batch, length, adapted layers and model size.

    python -m benchmarks.scaling [--plot docs/screenshots/scaling.svg] [--rounds 2] [--quick]

Decoders of the Llama family with random weights. From one common point, one size at a time is changed. Each cell is the
faster one of ``rounds`` iterations after one that warms up. The slope is that of log seconds over log size, by least
squares: 1 means twice the size for twice the time. Prints a table and, last, one JSON line.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.full_responses import write_in_full
from triphase.models.loading import LoadedModel
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.phases.ppo import PPOPhase
from triphase.records.types import Message, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import AdapterSettings

VOCABULARY = 2048
POINT = {"batch": 8, "length": 24, "layers": 4, "width": 256}
DEPTH = 8
AXES: dict[str, tuple[int, ...]] = {
    "batch": (4, 8, 16, 32),
    "length": (12, 24, 48, 96),
    "layers": (1, 2, 4, 8),
    "width": (128, 256, 512),
}
TITLES = {
    "batch": "episodes in a rollout",
    "length": "tokens of prompt, and as many of response",
    "layers": f"adapted layers, of {DEPTH}",
    "width": "parameters, millions",
}


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="write the plot here (.svg or .png)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes of each axis alone")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    print(f"{'axis':8} {'size':>8} {'s/iteration':>12} {'generation':>11} {'scoring':>8} {'update':>7}")
    for axis, sizes in AXES.items():
        for size in sizes[:2] if options.quick else sizes:
            row = measure({**POINT, axis: size}, options.rounds)
            row["size"] = row["parameters"] / 1e6 if axis == "width" else size
            found.setdefault(axis, []).append(row)
            parts = " ".join(
                f"{row[name]:{width}.2f}" for name, width in (("generation", 11), ("scoring", 8), ("update", 7))
            )
            print(f"{axis:8} {row['size']:8.3g} {row['seconds']:12.2f} {parts}", flush=True)
    slopes = {axis: slope(rows) for axis, rows in found.items()}
    for axis, value in slopes.items():
        print(f"slope against {TITLES[axis]}: {value:.2f}")
    if options.plot is not None:
        draw(found, slopes, options.plot)
    print(json.dumps({"slopes": {axis: round(value, 3) for axis, value in slopes.items()}}))


def measure(point: dict[str, int], rounds: int) -> dict[str, Any]:
    """The fastest iteration at one point, with its parts."""
    shared = _model(point["width"], point["layers"])
    length, batch = point["length"], point["batch"]
    settings = PPOSettings(
        iterations=rounds + 1,
        batch_size=batch,
        minibatch_size=batch,
        epochs=2,
        max_response_tokens=length,
        max_approximate_kl=None,
    )
    count = batch * (rounds + 1)
    ids = torch.randint(10, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
    prompts = [Prompt(str(number), (Message("user", "x"),)) for number in range(count)]
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=batch)
    phase = PPOPhase(shared, prompts, [tuple(row) for row in ids], generator, settings, seed=0)
    rows = []
    for iteration in range(rounds + 1):
        start = time.perf_counter()
        metrics = phase.advance(iteration)
        parts = {name: metrics[f"ppo/seconds_{name}"] for name in ("generation", "scoring", "update")}
        rows.append({"seconds": time.perf_counter() - start, **parts})
    best = min(rows[1:], key=lambda row: row["seconds"])
    numbers = sum(value.numel() for name, value in shared.backbone.model.named_parameters() if ".lora_" not in name)
    return {**best, "parameters": numbers}


def slope(rows: list[dict[str, Any]]) -> float:
    """Least-squares slope of log seconds over log size."""
    x, y = ([math.log(row[name]) for row in rows] for name in ("size", "seconds"))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def draw(found: dict[str, list[dict[str, Any]]], slopes: dict[str, float], path: Path) -> None:
    """Four panels of seconds over size, both logarithmic, with the line of the slope."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "scaling"
    figure, panels = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    for panel, (axis, rows) in zip(panels, found.items(), strict=True):
        sizes = [row["size"] for row in rows]
        for name, style in (("seconds", "o-"), ("generation", ".--"), ("update", ".:")):
            panel.plot(sizes, [row[name] for row in rows], style, label="iteration" if name == "seconds" else name)
        panel.set(xscale="log", yscale="log", xlabel=TITLES[axis], title=f"slope {slopes[axis]:.2f}")
        panel.set_xticks(sizes, [f"{size:.3g}" for size in sizes], minor=False)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    panels[0].legend()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _model(width: int, adapted: int) -> SharedModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=DEPTH,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 128),
        head_dim=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    plain = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1, "<unknown>": 2, "x": 3}, unk_token="<unknown>"))  # noqa: S106 - no password
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unknown>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    loaded = LoadedModel(model, tokenizer, "random")
    shared = SharedModel(loaded, AdapterSettings(layers=adapted), seed=0)
    for name in (REFERENCE, REWARD):
        shared.adapters.add(name)
    write_in_full(shared)
    return shared


if __name__ == "__main__":
    main()
