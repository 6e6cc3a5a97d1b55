"""Accuracy of reward models on human preferences: ours, its head alone, and TRL 1.16, on the same comparisons.

    python -m benchmarks.preferences DATA [--peer PATH_TO_PEER_PYTHON] [--trained 500] [--heldout 199]
        [--longest 660] [--seeds 0,1,2] [--layers all,10] [--peer-rates 3e-4,1e-3] [--peer-parts 1] [--kept FILE]

DATA is any file of comparisons that `data.preferences` reads. Rows that cannot be read are counted and left out; of the
comparisons whose conversation has under ``--longest`` characters, the first ``--trained`` are trained on and the next
``--heldout`` are judged, no prompt on both sides. One pass in batches of 8, LoRA of rank 16 on every linear map of the
layers, the settings' defaults for all else; both sides read the same messages by the model's own template.
`PATH_TO_PEER_PYTHON` is the Python of an environment with trl==1.16.0, peft and the same torch. Prints a table
(accuracy and Bradley–Terry loss on the held-out comparisons, 95 % intervals by bootstrap over prompts, processor
seconds of training without evaluations), the differences between the sides over the seeds that both have, and a JSON
line. A row takes 5 to 15 minutes of a core: with ``--kept`` each is added to FILE, and those that it has for the same
comparisons are not made again. `benchmarks/measured/preferences.jsonl` has the rows of the 1,200 harmless
comparisons of HH-RLHF in docs/decisions.md.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sides import HERE, Row, run_side
from triphase.demo.embedded import model_directory
from triphase.errors import TriphaseError
from triphase.models.products import prefers_bfloat16
from triphase.records.reading import read_preferences
from triphase.records.types import Comparison
from triphase.reports.intervals import Interval, mean_over_prompts
from triphase.settings.data import SourceSettings


def main() -> None:
    """Run both sides in turn, print the table and the JSON line."""
    options = _options()
    refused: list[TriphaseError] = []
    comparisons = read_preferences(SourceSettings(path=str(options.data)), Path(), refused=refused.append)
    trained, heldout = _parts(comparisons, options)
    print(f"{len(trained)} trained, {len(heldout)} held out, {len(refused)} rows cannot be read", file=sys.stderr)
    longer = mean_over_prompts([_longer(each) for each in heldout])
    rows: list[Row] = []
    found: dict[tuple[str, str, float, int], list[float]] = {}
    names = f"{'side':<22} {'layers':<7} {'rate':<8} {'seed':<5}"
    print(f"{names} accuracy (95 %)         loss in nats per pair (95 %)  training")
    print(f"{'longer wins':<45} {_shown(longer)}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = [_write(Path(scratch) / name, part) for name, part in (("trained", trained), ("heldout", heldout))]
        kept = Kept(options.kept, files, scratch)
        for command in _commands(options, files, scratch):
            row = kept.row(command) or kept.add(command, run_side(command))
            found[row["what"], row["layers"], row["learning_rate"], row["seed"]] = row["margins"]["adapter"]
            for name, margins in row.pop("margins").items():
                accuracy, loss = judged(margins)
                rate = f"{row['learning_rate']:g}"
                place = f"{row['what'] + ' ' + name:<22} {row['layers']:<7} {rate:<8} {row['seed']:<5}"
                spent = f"{row['cpu_seconds']:.0f} s" if "cpu_seconds" in row else "–"  # the first rows do not have it
                # flushed: hours pass between rows
                print(f"{place} {_shown(accuracy)}  {_shown(loss)}       {spent}", flush=True)
                row[name] = {"accuracy": accuracy.value, "loss": loss.value}
            rows.append(row)
    for (layers, rate), (accuracy, loss, seeds) in against_peer(found).items():
        print(f"ours − TRL at {rate:g}, {layers} layers, {seeds} seeds: {_shown(accuracy)}  {_shown(loss)}")
    print(json.dumps({"trained": len(trained), "heldout": len(heldout), "rows": rows}))


class Kept:
    """Rows of earlier starts, in a file; a row belongs to the command that made it and to the comparisons it read."""

    def __init__(self, path: Path | None, files: Sequence[str], scratch: str) -> None:
        self.path, self.scratch = path, scratch
        self.sums = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
        self.rows: dict[str, Row] = {}
        if path is not None and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            self.rows = {line["of"]: line["row"] for line in map(json.loads, lines) if line["sums"] == self.sums}

    def row(self, command: Sequence[str]) -> Row | None:
        """The row of a command, or None where no earlier start has made it."""
        row = self.rows.get(self._of(command))
        return None if row is None else dict(row)

    def add(self, command: Sequence[str], row: Row) -> Row:
        """Append the row of a command to the file."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"of": self._of(command), "sums": self.sums, "row": row}) + "\n")
        return row

    def _of(self, command: Sequence[str]) -> str:
        """A command without what each start and machine has a name of its own for."""
        parts = [Path(part).name if os.sep in part else part for part in command[1:] if part != self.scratch]
        return " ".join(parts)


def judged(margins: Sequence[float]) -> tuple[Interval, Interval]:
    """Accuracy and Bradley–Terry loss of score differences chosen − rejected, one for each prompt."""
    accuracy, loss = (mean_over_prompts(column) for column in zip(*map(_judged, margins), strict=True))
    assert accuracy is not None and loss is not None
    return accuracy, loss


def against_peer(
    found: Mapping[tuple[str, str, float, int], Sequence[float]],
) -> dict[tuple[str, float], tuple[Interval, Interval, int]]:
    """Accuracy and loss of ours minus those of the peer, by layers and rate of the peer.

    Each is the mean over the seeds that both have, comparison by comparison, with an interval over the comparisons.
    ``found``: score differences by side, layers, rate and seed.
    """
    ours = {(layers, seed): margins for (what, layers, _, seed), margins in found.items() if what == "triphase"}
    differences: dict[tuple[str, float], list[list[tuple[float, float]]]] = {}
    for (what, layers, rate, seed), margins in found.items():
        if what != "triphase" and (layers, seed) in ours:
            pairs = zip(map(_judged, ours[layers, seed]), map(_judged, margins), strict=True)
            differences.setdefault((layers, rate), []).append([(a[0] - b[0], a[1] - b[1]) for a, b in pairs])
    result = {}
    for case, seeds in differences.items():
        means = [[sum(terms) / len(seeds) for terms in zip(*each, strict=True)] for each in zip(*seeds, strict=True)]
        accuracy, loss = (mean_over_prompts(column) for column in zip(*means, strict=True))
        assert accuracy is not None and loss is not None
        result[case] = accuracy, loss, len(seeds)
    return result


def _judged(margin: float) -> tuple[float, float]:
    right = 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0
    return right, max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer", help="the peer's Python; without it ours alone runs")
    parser.add_argument("--trained", type=int, default=500)
    parser.add_argument("--heldout", type=int, default=199)
    parser.add_argument("--longest", type=int, default=660, help="characters of a conversation")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--layers", default="all,10", help="with commas: all, or how many from the top")
    parser.add_argument("--peer-rates", default="3e-4,1e-3", help="learning rates of the peer, with commas")
    parser.add_argument(
        "--peer-parts",
        type=int,
        choices=(1, 2, 4, 8),
        default=1,
        help="parts of the peer's batches of 8, to save memory",
    )
    parser.add_argument("--kept", type=Path, help="a file of rows: those that it has are not made again")
    dtype = "bfloat16" if prefers_bfloat16("cpu") else "float32"
    parser.add_argument("--dtype", default=dtype, help="of the base, on both sides (default here: %(default)s)")
    return parser.parse_args()


def _commands(options: argparse.Namespace, files: Sequence[str], scratch: str) -> Iterator[list[str]]:
    for seed in options.seeds.split(","):
        for layers in options.layers.split(","):
            yield [sys.executable, "-m", "benchmarks.ours_preferences", *files, layers, options.dtype, seed]
            for rate in options.peer_rates.split(",") if options.peer else ():
                model = str(model_directory("embedded:smollm2"))
                place = [str(HERE / "peer_preferences.py"), model, *files, layers, options.dtype, rate, seed, scratch]
                yield [options.peer, *place, *([str(options.peer_parts)] if options.peer_parts > 1 else [])]


def _parts(comparisons: Sequence[Comparison], options: argparse.Namespace) -> tuple[list[Comparison], list[Comparison]]:
    first: dict[str, Comparison] = {}
    for each in comparisons:
        size = sum(len(message.content) for message in each.prompt.messages) + max(len(each.chosen), len(each.rejected))
        if size < options.longest:
            first.setdefault(each.prompt.id, each)
    chosen = list(first.values())
    trained, heldout = chosen[: options.trained], chosen[options.trained :][: options.heldout]
    if len(heldout) < options.heldout:
        sys.exit(f"{options.data}: {len(chosen)} prompts are short enough; lower --trained or --heldout")
    return trained, heldout


def _write(path: Path, comparisons: Sequence[Comparison]) -> str:
    path = path.with_suffix(".jsonl")
    with path.open("w", encoding="utf-8") as lines:
        for each in comparisons:
            row: dict[str, Any] = {
                "prompt": [{"role": message.role, "content": message.content} for message in each.prompt.messages],
                "chosen": [{"role": "assistant", "content": each.chosen}],
                "rejected": [{"role": "assistant", "content": each.rejected}],
            }
            lines.write(json.dumps(row) + "\n")
    return str(path)


def _longer(each: Comparison) -> float:
    chosen, rejected = len(each.chosen.split()), len(each.rejected.split())
    return 1.0 if chosen > rejected else 0.5 if chosen == rejected else 0.0


def _shown(interval: Interval | None) -> str:
    assert interval is not None and interval.low is not None and interval.high is not None
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


if __name__ == "__main__":
    main()
