"""Supervised fine-tuning compared with TRL 1.16: the same records, LoRA rank and batch, both sides in turn, in one run.

    python -m benchmarks.sft --peer PATH_TO_PEER_PYTHON --data seed_tasks.jsonl [--rounds 3] [--rows 32]

`PATH_TO_PEER_PYTHON` is the Python of an environment with trl==1.16.0, peft and the same torch. The data are those of
Self-Instruct (`instruction`, `instances`). One pass in batches of 8, LoRA of rank 16 on every linear map; records of up
to 700 characters, so that neither side cuts or refuses one. Prints a table and, last, one JSON line: `ratio` is ours
with the top third of the layers over TRL with all layers in its better dtype, in real tokens per second (prompt
and response, no padding); `ratio_all_layers` has all layers on both sides.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.training_sides import compare, options_of

LONGEST = 700


def main() -> None:
    """Measure, print the table and the JSON line."""
    options = options_of(__doc__, rows=32)
    records = [record for _, record in zip(range(options.rows), _records(options.data), strict=False)]
    compare(
        options,
        records,
        modules=("benchmarks.ours_sft", "peer_sft.py"),
        figure="tokens_per_second",
        unit="real tokens/s",
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        task = json.loads(line)
        first = task["instances"][0]
        question = task["instruction"] + ("\n" + first["input"] if first["input"] else "")
        if len(question) + len(first["output"]) <= LONGEST and first["output"].strip():
            yield {
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": first["output"]}],
            }


if __name__ == "__main__":
    main()
