"""Shared by `benchmarks.sft` and `benchmarks.reward`: the list of runs, and the printed results."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sides import FIGURES, HERE, best, in_turn, median, peer_options, print_table
from triphase.demo.embedded import model_directory
from triphase.models.products import has_bfloat16, prefers_bfloat16

OURS, PEER = "triphase", "trl 1.16"
TOP_THIRD = "10"


def options_of(about: str | None, *, rows: int) -> argparse.Namespace:
    """The options of a training benchmark."""
    parser = peer_options(about)
    parser.add_argument("--rows", type=int, default=rows, help="how many records, from the start of the file")
    parser.add_argument(
        "--peer-dtype",
        default="float32,bfloat16" if has_bfloat16("cpu") else "float32",
        help="with commas; the better one counts (default here: %(default)s)",
    )
    own = "bfloat16" if prefers_bfloat16("cpu") else "float32"
    parser.add_argument("--dtype", default=own, help="ours (default here: %(default)s)")
    parser.add_argument("--peer-layers", default="all", help=f"with commas: all, {TOP_THIRD} (default: %(default)s)")
    return parser.parse_args()


def compare(
    options: argparse.Namespace,
    records: Sequence[dict[str, Any]],
    *,
    modules: tuple[str, str],
    figure: str,
    unit: str,
) -> None:
    """Run both sides on the same records, print the table and the JSON line.

    ``modules`` are ours and the file of the peer's, ``figure`` is the rate that they print.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "records.jsonl"
        data.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        cases = {
            (OURS, layers, options.dtype): [sys.executable, "-m", modules[0], str(data), layers, options.dtype]
            for layers in (TOP_THIRD, "all")
        }
        model = str(model_directory("embedded:smollm2"))
        for layers in options.peer_layers.split(","):
            for dtype in options.peer_dtype.split(","):
                command = [options.peer, str(HERE / modules[1]), model, str(data), layers, dtype, scratch]
                cases[PEER, layers, dtype] = command
        found = in_turn(cases, rounds=options.rounds)
    print_table(found, ("side", "layers", "dtype"), {figure: unit, **FIGURES})

    def rate_of(side: str, layers: str) -> float:
        return median(best(found, figure, of=lambda case: case[:2] == (side, layers)), figure)

    theirs = {layers: rate_of(PEER, layers) for layers in options.peer_layers.split(",")}
    ours = {layers: rate_of(OURS, layers) for layers in (TOP_THIRD, "all")}
    line: dict[str, Any] = {}
    if "all" in theirs:
        line = {"ratio": ours[TOP_THIRD] / theirs["all"], "ratio_all_layers": ours["all"] / theirs["all"]}
    if TOP_THIRD in theirs:
        line["ratio_like_for_like"] = ours[TOP_THIRD] / theirs[TOP_THIRD]
    line = {key: round(value, 2) for key, value in line.items()}
    print(json.dumps({**line, "records": len(records), "ours": ours, "theirs": theirs}))


def timed(steps: int, advance: Callable[[int], object]) -> None:
    """Carry a phase to its end without checkpoints."""
    for step in range(steps):
        advance(step)
