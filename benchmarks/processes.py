"""A PPO iteration by several processes of one thread each, compared with one process of one thread.

    python -m benchmarks.processes --model smollm2 --processes 2

The settings are the demo's, for PPO alone with a rule as scorer. Both sides run in turn, each in processes of its own
as `triphase run` starts them; an iteration counts from its sampling to the end of its updates, the first is left out.
The ratio is that of the medians. On a machine that does other work it says little: two processes also get a larger
share of the processors than one, so look at the load that is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from triphase.demo.configuration import demo_settings

PARTS = ("ppo/seconds_generation", "ppo/seconds_scoring", "ppo/seconds_update")


def configuration(folder: Path, name: str, *, tiny: bool, iterations: int) -> Path:
    """A settings file for one run below ``folder``."""
    plain = demo_settings(tiny=tiny, output=str(folder)).model_dump(mode="json")
    plain["labeling"].pop("import_", None)
    ppo = {**plain["ppo"], "iterations": iterations, "max_approximate_kl": None}
    ppo |= {"scorer": {"kind": "repetition"}, "kl_budget": None}
    fixed: dict[str, Any] = {
        "name": name,
        "threads": 1,
        "variants": {},
        "sft": {"method": "none"},
        "labeling": {"source": "none"},
        "reward": {},
        "ppo": ppo,
        "evaluation": {**plain["evaluation"], "samples_per_prompt": 1, "max_prompts": 1},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**plain, **fixed}, sort_keys=False), encoding="utf-8")
    return path


def seconds_of(run: Path) -> list[dict[str, float]]:
    """The seconds of the parts of each iteration after the first."""
    rows = [json.loads(line) for line in (run / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{part: row[part] for part in PARTS} for row in rows[1:]]


def measure(folder: Path, name: str, processes: int, *, tiny: bool, iterations: int) -> list[dict[str, float]]:
    """Run PPO with so many processes."""
    path = configuration(folder, name, tiny=tiny, iterations=iterations)
    words = ["run", str(path), *(["--processes", str(processes)] if processes > 1 else [])]
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run([sys.executable, "-m", "triphase", *words], env=os.environ | quiet, check=True, capture_output=True)
    return seconds_of(folder / name)


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """The median of each part, and of the whole."""
    found = {part: statistics.median(row[part] for row in rows) for part in PARTS}
    return found | {"iteration": statistics.median(sum(row.values()) for row in rows)}


def main() -> int:
    """Print both sides and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="smollm2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2, help="both sides in turn, so many times")
    options = parser.parse_args()
    sides: dict[int, list[dict[str, float]]] = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            for count, rows in sides.items():
                tiny, name = options.model == "tiny", f"by-{count}-{turn}"
                rows += measure(Path(folder), name, count, tiny=tiny, iterations=options.iterations)
    found = {count: medians(rows) for count, rows in sides.items()}
    for count, each in found.items():
        told = ", ".join(f"{name.removeprefix('ppo/seconds_')} {value:.2f} s" for name, value in each.items())
        print(f"{count} process{'es' if count > 1 else ''}: {told}")
    alone, together = found[1], found[options.processes]
    ratios = ", ".join(f"{name.removeprefix('ppo/seconds_')} {alone[name] / together[name]:.2f}" for name in alone)
    print(f"times as fast by {options.processes}: {ratios}")
    print(f"load of the machine (1, 5, 15 minutes): {' '.join(f'{value:.1f}' for value in os.getloadavg())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
