"""PPO iterations beside TRL 1.12: both sides in turn, in one run, on the same episodes, lengths, epochs and LoRA rank.

    python -m benchmarks.ppo --peer PATH_TO_PEER_PYTHON [--rounds 3]

`PATH_TO_PEER_PYTHON` is the Python of an environment with trl==1.12.0, peft and the same torch. Prints a table
and, last, one JSON line: `ratio` is TRL with all layers in its better dtype over ours with the default adapters,
`ratio_like_for_like` the same layers on both sides, each in its better dtype, `peak_memory_ratio` ours over TRL's, like
for like. Seconds are those of the last iteration of a process (the first one warms up), medians over the rounds.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.sides import run_side
from triphase.embedded.registry import model_directory

HERE = Path(__file__).parent
OURS = (("10", "bfloat16"), ("all", "bfloat16"))
PEER = (("10", "bfloat16"), ("all", "bfloat16"), ("10", "float32"), ("all", "float32"))


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="the peer's Python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--skip-float32", action="store_true", help="leave out the peer's slower number type")
    options = parser.parse_args()
    peer = [case for case in PEER if case[1] != "float32" or not options.skip_float32]
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for layers, dtype in OURS:
            command = [sys.executable, "-m", "benchmarks.ours_ppo", "--layers", layers, "--dtype", dtype]
            row = run_side([*command, "--iterations", str(options.iterations)])
            found.setdefault(("triphase", layers, dtype), []).append(row)
        for layers, dtype in peer:
            model = str(model_directory("embedded:smollm2"))
            command = [options.peer, str(HERE / "peer_ppo.py"), model, layers, dtype, str(options.iterations)]
            found.setdefault(("trl 1.12", layers, dtype), []).append(run_side(command))
    _table(found)
    print(json.dumps(_ratios(found)))


def _seconds(rows: list[dict[str, Any]]) -> float:
    return statistics.median(row["seconds_per_iteration"][-1] for row in rows)


def _table(found: dict[tuple[str, str, str], list[dict[str, Any]]]) -> None:
    print(f"{'side':10} {'layers':7} {'dtype':9} {'s/iteration':>12} {'episodes/s':>11} {'peak GB':>8}  parts")
    for (side, layers, dtype), rows in found.items():
        seconds = _seconds(rows)
        memory = statistics.median(row["peak_gb"] for row in rows)
        parts = ", ".join(f"{name} {value}" for name, value in rows[-1]["parts"].items())
        rate = rows[-1]["episodes_per_iteration"] / seconds
        print(f"{side:10} {layers:7} {dtype:9} {seconds:12.2f} {rate:11.2f} {memory:8.2f}  {parts}")


def _ratios(found: dict[tuple[str, str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    def best(side: str, layers: str) -> list[dict[str, Any]]:
        return min((rows for (s, n, _), rows in found.items() if (s, n) == (side, layers)), key=_seconds)

    memory = {
        (side, layers): statistics.median(row["peak_gb"] for row in best(side, layers))
        for side in ("triphase", "trl 1.12")
        for layers in ("10", "all")
    }
    ours, ours_all = _seconds(best("triphase", "10")), _seconds(best("triphase", "all"))
    return {
        "ratio": round(_seconds(best("trl 1.12", "all")) / ours, 2),
        "ratio_like_for_like": round(_seconds(best("trl 1.12", "10")) / ours, 2),
        "ratio_all_layers": round(_seconds(best("trl 1.12", "all")) / ours_all, 2),
        "peak_memory_ratio": round(memory["triphase", "10"] / memory["trl 1.12", "10"], 2),
        "seconds": {"ours": ours, "ours_all_layers": ours_all},
    }


if __name__ == "__main__":
    main()
