"""Simulated: time of a PPO iteration on 1 to 1,024 cards with 1 to 70 B parameters. No card is needed.

    python -m benchmarks.scale [--card h100] [--plot docs/screenshots/scale.svg]

Prints, for each model, seconds and utilization by number of cards, synchronous and one iteration ahead, and where a
doubling of the cards stops to pay; then the model beside published figures of other systems, with its error; and a JSON
line. Formulas and calibration are in ``scale_model.py``, what they leave out in docs/scale.md.
"""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scale_model import MEASURED, SHAPES, Job, cards_for, fitted, iteration, one_ahead
from triphase.planning.machine import CARDS, Card

GPUS = tuple(2**power for power in range(11))
MODELS = ("1B", "8B", "70B")
PARTS = (("generation", 11), ("scoring", 8), ("update", 8), ("network", 8))
PAYS = 1.5
"""A doubling pays while it makes an iteration so many times as fast."""
# (model, cards, seconds): OpenRLHF's README until 2025-06, A800 80 GB, 1,024 prompts, full weights, one epoch.
OPENRLHF = (("7B", 16, 471.0), ("13B", 32, 609.0), ("34B", 32, 1526.0), ("70B", 32, 4488.0))
# NeMo-Aligner's documentation: Llama 3 70B, 1,024 rollouts in batches of 128, nodes of eight H100: (cards, seconds).
NEMO = ((96, 366.7), (768, 56.9))
PUBLISHED = Job(prompt=1024, response=1024, longest=1024, minibatches=8, full=True)


def main() -> None:
    """Print the tables and the JSON line, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", default="h100", choices=CARDS)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    card, job = CARDS[options.card], Job()
    rows = [row for name in MODELS for row in rows_of(name, job, card)]
    sizes = f"{job.episodes} episodes of {job.prompt} + {job.response} tokens (longest {job.longest})"
    print(f"{card.name}: {sizes}, adapters on all layers; seconds")
    heads = " ".join(f"{name:>{width}}" for name, width in PARTS)
    print(f"{'model':<6} {'cards':>6} {'in all':>9} {heads} {'use':>6} {'one ahead':>10}")
    for row in rows:
        parts = " ".join(f"{row[name]:{width}.2f}" for name, width in PARTS)
        place = f"{row['model']:<6} {row['gpus']:>6} {row['seconds']:9.1f}"
        ahead = "–" if row["one_ahead"] is None else f"{row['one_ahead']:.1f}"
        print(f"{place} {parts} {row['use']:6.0%} {ahead:>10}")
    for name in MODELS:
        print(f"{name}: a doubling pays (at least {PAYS} times as fast) up to {pays_to(name, job, card)} cards")
    compared = published()
    for line in compared:
        place = f"{line['system']:<14} {line['model']:<4} {line['gpus']:>4} cards"
        seconds = f"{line['seconds']:7.1f} s published, {line['simulated']:7.1f} s simulated"
        print(f"{place}: {seconds} ({line['error']:+.0%})")
    print(json.dumps({"card": card.name, "rows": rows, "published": compared}))
    if options.plot:
        draw(rows, card, options.plot)


def rows_of(name: str, job: Job, card: Card) -> list[dict[str, Any]]:
    """One model on every number of cards that can hold it."""
    shape, rows = SHAPES[name], []
    fewest = cards_for(shape, card)
    for gpus in GPUS:
        if gpus < fewest:
            continue
        found = iteration(shape, job, card, gpus)
        first = rows[0]["seconds"] * fewest if rows else found.total * gpus
        ahead, sampling = one_ahead(shape, job, card, gpus)
        rows.append(
            {
                "model": name,
                "gpus": gpus,
                "seconds": found.total,
                "generation": found.generation,
                "scoring": found.scoring,
                "update": found.update,
                "network": found.network,
                "use": first / (found.total * gpus),
                "one_ahead": ahead if sampling else None,
                "sampling_gpus": sampling,
            }
        )
    return rows


def pays_to(name: str, job: Job, card: Card) -> int:
    """The most cards up to which every doubling paid."""
    rows = rows_of(name, job, card)
    most: int = rows[0]["gpus"]
    for before, after in itertools.pairwise(rows):
        if before["seconds"] < PAYS * after["seconds"]:
            break
        most = after["gpus"]
    return most


def published() -> list[dict[str, Any]]:
    """The model beside what others measured: one factor is fitted on a system's first figure, the rest is predicted."""
    found = []
    megatron = replace(PUBLISHED, tensor=8)
    for system, card, job, figures in (
        ("OpenRLHF", CARDS["a100-80gb"], PUBLISHED, OPENRLHF),
        ("NeMo-Aligner", CARDS["h100"], megatron, tuple(("70B", gpus, seconds) for gpus, seconds in NEMO)),
    ):
        name, gpus, seconds = figures[0]
        low, high = 0.01, 1000.0
        for _ in range(60):
            middle = (low * high) ** 0.5
            slower = iteration(SHAPES[name], job, card, gpus, fitted(MEASURED, middle)).total
            low, high = (middle, high) if slower < seconds else (low, middle)
        shares = fitted(MEASURED, low)
        for name, gpus, seconds in figures:
            simulated = iteration(SHAPES[name], job, card, gpus, shares).total
            found.append(
                {
                    "system": system,
                    "model": name,
                    "gpus": gpus,
                    "seconds": seconds,
                    "simulated": simulated,
                    "error": simulated / seconds - 1,
                    "factor": low,
                }
            )
    return found


def draw(rows: list[dict[str, Any]], card: Card, path: Path) -> None:
    """Seconds against cards, both on logarithmic axes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "triphase"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == name]
        line = axes.loglog([row["gpus"] for row in mine], [row["seconds"] for row in mine], marker="o", label=name)[0]
        ahead = [row for row in mine if row["one_ahead"] is not None]
        axes.loglog([row["gpus"] for row in ahead], [row["one_ahead"] for row in ahead], ls=":", color=line.get_color())
    axes.set_xlabel(f"cards ({card.name})")
    axes.set_ylabel("seconds of an iteration (dotted: one ahead)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
