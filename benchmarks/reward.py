"""Reward training compared with TRL 1.16: the same pairs, LoRA rank and batch, both sides in turn, in one run.

    python -m benchmarks.reward --peer PATH_TO_PEER_PYTHON --data pairs.jsonl.gz [--rounds 3] [--rows 24]

`PATH_TO_PEER_PYTHON` is the Python of an environment with trl==1.16.0, peft and the same torch. The data are
conversations as HH-RLHF writes them (`chosen`, `rejected`), those of under 700 characters. One pass in batches of 8
pairs, LoRA of rank 16 on every linear map, no fit of the head beforehand. Prints a table and, last, one JSON line:
`ratio` is ours with the top third of the layers over TRL with all layers in its better dtype, in pairs per second;
`ratio_all_layers` has all layers on both sides.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.training_sides import compare, options_of

LONGEST = 700


def main() -> None:
    """Measure, print the table and the JSON line."""
    options = options_of(__doc__, rows=24)
    records = [record for _, record in zip(range(options.rows), _records(options.data), strict=False)]
    compare(
        options,
        records,
        modules=("benchmarks.ours_reward", "peer_reward.py"),
        figure="pairs_per_second",
        unit="pairs/s",
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if max(len(row["chosen"]), len(row["rejected"])) < LONGEST:
                yield {"chosen": row["chosen"], "rejected": row["rejected"]}


if __name__ == "__main__":
    main()
