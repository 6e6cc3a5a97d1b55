"""The quality gate: the demo's results with adapters on the top third of the layers and on all of them.

    python -m benchmarks.layers [--seeds 0,1,2] [--all-iterations N] [--at-once]

Runs the demo's settings with `adapters.layers` 10 and `all`, each seed in turn. All layers cost more a step, so they
get fewer PPO iterations (`--all-iterations`), such that both take the same wall-clock; the table shows what they took.
With `--at-once` both runs of a seed go side by side, each on half of the cores. What is finished in `--out` is not run
again. Prints a table and, last, one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import triphase.demo.configuration
from benchmarks.sides import Found, Row, print_table

SETTINGS = Path(triphase.demo.configuration.__file__).with_name("demo.yaml")
TOP_THIRD, ALL = "10", "all"
COLUMNS = {
    "iterations": "PPO iterations",
    "minutes": "minutes",
    "accuracy": "reward accuracy",
    "win_rate": "gold win rate",
    "sft_gold": "gold of SFT",
    "gold": "gold of PPO",
    "kl": "KL",
    "peak_gb": "peak GB",
}


def main() -> None:
    """Run what is missing, print the table and the JSON line."""
    options = _options()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    iterations = {TOP_THIRD: options.iterations, ALL: options.all_iterations}
    for seed in seeds:
        missing = [layers for layers in iterations if not _summary(options.out, layers, seed).exists()]
        for together in [missing] if options.at_once else [[layers] for layers in missing]:
            _run(options.out, {layers: iterations[layers] for layers in together}, seed, halves=options.at_once)
    found: Found = {(layers,): [_figures(options.out, layers, seed) for seed in seeds] for layers in iterations}
    print_table(found, ("layers",), COLUMNS)
    print(json.dumps({layers: rows for (layers,), rows in found.items()}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--iterations", type=int, help="of PPO on the top third; the demo's by default")
    parser.add_argument("--all-iterations", type=int, help="of PPO on all layers; the demo's by default")
    parser.add_argument("--at-once", action="store_true", help="both runs of a seed side by side, half the cores each")
    parser.add_argument("--out", type=Path, default=Path("runs/layers"), help="where the runs lie")
    return parser.parse_args()


def _name(layers: str, seed: int) -> str:
    return f"layers-{layers}-seed{seed}"


def _summary(out: Path, layers: str, seed: int) -> Path:
    return out / _name(layers, seed) / "summary.json"


def _run(out: Path, iterations: dict[str, int | None], seed: int, *, halves: bool) -> None:
    """The demo with each of these layers, at the same time; the first that fails ends this process."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // 2 if halves else len(cores)
    running = []
    for place, (layers, count) in enumerate(iterations.items()):
        own = cores[place * share : (place + 1) * share] if halves else cores
        command = [sys.executable, "-m", "triphase", "run", str(SETTINGS), "--output", str(out), "--seed", str(seed)]
        command += ["--name", _name(layers, seed), "--adapters.layers", layers, "--threads", str(len(own))]
        command += [] if count is None else ["--ppo.iterations", str(count)]
        print(" ".join(command), file=sys.stderr, flush=True)
        # Before a library asks how many cores there are.
        pinned = ["taskset", "-c", ",".join(map(str, own)), *command]
        out.mkdir(parents=True, exist_ok=True)
        told = out / f"{_name(layers, seed)}.log"  # a pipe that nobody reads yet would fill and stop it
        with told.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(pinned, stdout=subprocess.DEVNULL, stderr=file)
        running.append((layers, process, told))
    for layers, process, told in running:
        if process.wait():
            words = told.read_text(encoding="utf-8")[-2000:]
            sys.exit(f"{_name(layers, seed)} ended with {process.returncode}:\n{words}")


def _figures(out: Path, layers: str, seed: int) -> Row:
    summary: dict[str, Any] = json.loads(_summary(out, layers, seed).read_text(encoding="utf-8"))
    ppo = summary["ppo"]
    steps = (out / _name(layers, seed) / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "seed": seed,
        "iterations": max(json.loads(line)["step"] for line in steps),
        "minutes": round(summary["seconds"] / 60, 2),
        "accuracy": round(summary["reward_model"]["accuracy"], 3),
        "win_rate": round(ppo["gold_win_rate"], 3),
        "sft_gold": round(summary["sft"]["gold_mean"], 2),
        "gold": round(ppo["gold_mean"], 2),
        "kl": round(ppo["reference_kl"], 1),
        "peak_gb": round(summary["peak_gb"], 2),
    }


if __name__ == "__main__":
    main()
