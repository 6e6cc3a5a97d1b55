"""python -m tests.resilience.large_check [--megabytes 1000]: time and memory of `triphase check` on a large file."""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = "the of and to in a is that for it as was with be by on not he this are or his from at which but have".split()


def write_comparisons(path: Path, megabytes: int) -> int:
    """Comparisons of about 600 bytes; returns how many."""
    draw, count, size = random.Random(0), 0, 0
    with path.open("w") as file:
        while size < megabytes * 1_000_000:
            sizes = {"prompt": 25, "chosen": 60, "rejected": 55}
            line = json.dumps({name: " ".join(draw.choices(WORDS, k=length)) for name, length in sizes.items()}) + "\n"
            file.write(line)
            size, count = size + len(line), count + 1
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    megabytes = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as folder:
        records = write_comparisons(Path(folder, "large.jsonl"), megabytes)
        shown = [{"prompt": f"say {number}", "completion": str(number)} for number in range(50)]
        Path(folder, "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
        config = Path(folder, "config.yaml")
        config.write_text(
            "name: c\nmodel: {name: 'embedded:smollm2'}\nlabeling: {source: none}\n"
            "data: {demonstrations: [{path: shown.jsonl}], preferences: [{path: large.jsonl}]}\n"
        )
        begin = time.monotonic()
        command = [sys.executable, "-m", "triphase", "check", str(config)]
        code = subprocess.run(command, env={**os.environ, "COLUMNS": "120"}).returncode
        seconds = time.monotonic() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{megabytes} MB, {records} records: {seconds:.0f} s ({used.ru_utime + used.ru_stime:.0f} s of processor), "
        f"{used.ru_maxrss / 1000:.0f} MB of memory, exit code {code}"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
