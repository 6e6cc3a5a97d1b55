"""Rollouts sampled one iteration ahead, compared with rollouts sampled when they are needed: quality and time.

    python -m benchmarks.ahead --seeds 3

The tiny task, with rollouts from one server (`benchmarks.stand_in`, a process of its own) on the same machine. For
each seed both sides start from the same SFT policy and reward model, and both weight advantages by
ppo.importance_limit. Gold and proxy scores and the KL are means over the last fifth of the iterations; seconds are
medians over all but the first two. The quality is the same on a busy machine; the seconds need two idle cores, one for
the server.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.tiny_task import tiny_settings
from triphase.monitoring.metrics import read_metrics

QUALITY = ("ppo/gold_score", "ppo/proxy_score", "ppo/reference_kl", "ppo/sampler_difference", "ppo/importance_cut")
PARTS = ("ppo/seconds_generation", "ppo/seconds_scoring", "ppo/seconds_update")
_QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def write(folder: Path, name: str, seed: int, iterations: int, **changes: Any) -> Path:
    """The settings file of one run below ``folder``."""
    ppo = {"iterations": iterations, "importance_limit": 2.0, "kl_budget": None} if "rollouts" in changes else {}
    values = tiny_settings(str(folder), seed=seed).model_dump(mode="json", exclude_unset=True)
    for section in (values.get("labeling") or {}, values):
        section.pop("import_", None)
    path = folder / f"{name}.yaml"
    own = {"name": name, "ppo": {**values["ppo"], **ppo}}
    for key, change in changes.items():
        own[key] = {**values.get(key, {}), **change}
    path.write_text(yaml.safe_dump({**values, **own}, sort_keys=False), encoding="utf-8")
    return path


def triphase(*words: str) -> None:
    """One command; its output is shown if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "triphase", *words], env=os.environ | _QUIET, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The address of a server of this run's policies."""
    command = [sys.executable, "-m", "benchmarks.stand_in", str(run)]
    with subprocess.Popen(command, env=os.environ | _QUIET, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def figures_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Quality over the last fifth of the iterations, and the seconds of an iteration."""
    last = rows[-max(1, len(rows) // 5) :]
    found = {name: statistics.fmean(row[name] for row in last) for name in QUALITY}
    timed = rows[2:] or rows
    found |= {part: statistics.median(row[part] for row in timed) for part in PARTS}
    return found | {"seconds": statistics.median(sum(row[part] for part in PARTS) for row in timed)}


def compared(folder: Path, seed: int, iterations: int) -> dict[int, dict[str, float]]:
    """Both sides of one seed, by `rollouts.ahead`."""
    begun, found = folder / f"begun-{seed}", {}
    first = write(folder, begun.name, seed, iterations)
    for phase in ("sft", "sample", "reward"):
        triphase(phase, str(first))
    with served(begun) as address:
        for ahead in (0, 1):
            name = f"ahead-{ahead}-{seed}"
            changes = {"sft": {"from": str(begun)}, "reward": {"from": str(begun)}}
            rollouts = {"addresses": [address], "ahead": ahead, "parallel": 128}
            triphase("ppo", str(write(folder, name, seed, iterations, rollouts=rollouts, **changes)))
            found[ahead] = figures_of(read_metrics(folder / name / "ppo" / "metrics.jsonl"))
    return found


def main() -> int:
    """Print both sides of each seed, and the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.first, options.first + options.seeds):
            found[seed] = compared(Path(folder), seed, options.iterations)
            for ahead, each in found[seed].items():
                told = ", ".join(f"{name.removeprefix('ppo/')} {value:.3f}" for name, value in each.items())
                print(f"seed {seed}, ahead {ahead}: {told}", flush=True)
    for name in QUALITY[:3]:
        gaps = [sides[1][name] - sides[0][name] for sides in found.values()]
        print(f"{name.removeprefix('ppo/')}, ahead 1 − ahead 0: {', '.join(f'{gap:+.3f}' for gap in gaps)}")
    ratios = [sides[0]["seconds"] / sides[1]["seconds"] for sides in found.values()]
    print(f"times as fast with ahead 1: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(f"load of the machine (1, 5, 15 minutes): {' '.join(f'{value:.1f}' for value in os.getloadavg())}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
