"""PPO iterations beside TRL 1.12: both sides in turn, in one run, on the same episodes, lengths, epochs and LoRA rank.

    python -m benchmarks.ppo --peer PATH_TO_PEER_PYTHON [--rounds 3]

`PATH_TO_PEER_PYTHON` is the Python of an environment with trl==1.12.0, peft and the same torch. Prints a table
and, last, one JSON line: `ratio` is TRL with all layers in its better dtype over ours with the default adapters,
`ratio_like_for_like` the same layers on both sides, each in its better dtype, `peak_memory_ratio` ours over TRL's, like
for like, and `floor_share` the time that our operations take at the rate of large products, measured in the same
process, over the time that they took. The first iteration of a process warms up; seconds are medians over the others.
"""

import argparse
import json
import statistics
import sys
from typing import Any

from benchmarks.sides import HERE, Found, Row, in_turn, median, print_table
from triphase.demo.embedded import model_directory
from triphase.models.products import has_bfloat16, prefers_bfloat16

OURS, PEER, TOP_THIRD = "triphase", "trl 1.12", "10"
LAYERS = (TOP_THIRD, "all")
COLUMNS = {
    "seconds": "s/iteration",
    "generation": "generation",
    "scoring": "scoring",
    "update": "update",
    "floor_seconds": "floor s",
    "rate": "episodes/s",
    "peak_gb": "peak GB",
}


def main() -> None:
    """Measure, print the table and the JSON line."""
    options = _options()
    model, iterations = str(model_directory("embedded:smollm2")), str(options.iterations)
    cases: dict[tuple[str, ...], list[str]] = {}
    for layers in LAYERS:
        for dtype in options.dtype.split(","):
            command = [sys.executable, "-m", "benchmarks.ours_ppo", "--layers", layers, "--dtype", dtype]
            cases[OURS, layers, dtype] = [*command, "--iterations", iterations]
        for dtype in options.peer_dtype.split(","):
            cases[PEER, layers, dtype] = [
                options.peer,
                str(HERE / "peer_ppo.py"),
                model,
                layers,
                dtype,
                iterations,
                "--cpu",
            ]
    found = {case: [_figures(row) for row in rows] for case, rows in in_turn(cases, rounds=options.rounds).items()}
    for side in (OURS, PEER):
        rows = {case: of for case, of in found.items() if case[0] == side}
        known = {key: name for key, name in COLUMNS.items() if all(key in row for of in rows.values() for row in of)}
        print_table(rows, ("side", "layers", "dtype"), known)
    print(json.dumps(_ratios(found)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="the peer's Python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=2, help="of each process; the first one is not counted")
    own = "bfloat16" if prefers_bfloat16("cpu") else "float32"
    parser.add_argument("--dtype", default=own, help="ours (default: %(default)s)")
    parser.add_argument(
        "--peer-dtype",
        default="bfloat16,float32" if has_bfloat16("cpu") else "float32",
        help="with commas; the better one counts (default here: %(default)s)",
    )
    options = parser.parse_args()
    if options.iterations < 2:
        parser.error("--iterations: at least 2, since the first one is not counted")
    return options


def _figures(row: Row) -> Row:
    """Medians over a process's iterations but for the first."""
    seconds = statistics.median(row["seconds_per_iteration"][1:])
    return {**row, **row["parts"], "seconds": seconds, "rate": round(row["episodes_per_iteration"] / seconds, 2)}


def _ratios(found: Found) -> dict[str, Any]:
    def best(side: str, layers: str) -> list[Row]:
        chosen = (rows for case, rows in found.items() if case[:2] == (side, layers))
        return min(chosen, key=lambda rows: median(rows, "seconds"))

    def seconds(side: str, layers: str) -> float:
        return median(best(side, layers), "seconds")

    def ratio(layers: str) -> float:
        return round(seconds(PEER, layers) / seconds(OURS, layers), 2)

    def memory(layers: str) -> float:
        return round(median(best(OURS, layers), "peak_gb") / median(best(PEER, layers), "peak_gb"), 2)

    return {
        "ratio": round(seconds(PEER, "all") / seconds(OURS, TOP_THIRD), 2),
        "ratio_like_for_like": ratio(TOP_THIRD),
        "ratio_all_layers": ratio("all"),
        "peak_memory_ratio": memory(TOP_THIRD),
        "peak_memory_ratio_all_layers": memory("all"),
        "floor_share": {
            layers: round(median(best(OURS, layers), "floor_seconds") / seconds(OURS, layers), 2) for layers in LAYERS
        },
        "dtype": {f"{side}, {layers}": best(side, layers)[0]["dtype"] for side in (OURS, PEER) for layers in LAYERS},
    }


if __name__ == "__main__":
    main()
