"""One PPO iteration by what is trained: an adapter or all weights, a value head or a critic with its own adapter.

    python -m benchmarks.roles [--rounds 2]

Runs `benchmarks.ours_ppo` on the embedded model in float32, each time in a process of its own, in turn, and prints
seconds, their parts and the peak of resident memory of every run, last in one JSON line.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

SETUPS = (("lora", "value-head"), ("full", "value-head"), ("lora", "adapter"), ("full", "adapter"))


def main() -> None:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="how often each is run")
    parser.add_argument("--layers", default="10", help="adapted layers from the top, or all")
    options = parser.parse_args()
    rows = []
    for number in range(1, options.rounds + 1):
        for method, critic in SETUPS:
            row = {"round": number, "method": method, **_run(method, critic, options.layers), "critic": critic}
            rows.append(row)
            parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in row["parts"].items())
            seconds = row["seconds_per_iteration"][-1]
            print(f"{number}  {method:5} {critic:11} {seconds:7.1f} s ({parts})  {row['peak_gb']:.2f} GB", flush=True)
    print(json.dumps(rows))


def _run(method: str, critic: str, layers: str) -> dict[str, Any]:
    options = ["--method", method, "--critic", critic, "--layers", layers, "--iterations", "1", "--uncounted"]
    command = [sys.executable, "-m", "benchmarks.ours_ppo", *options, "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{method}, {critic} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
