"""python -m tests.crash --kills 50 [--what run|branch|extend|sweep] [--seed 0] [--method lora|full] [--report]

Runs a small pipeline undisturbed, then again and again with kills at random points, and compares every byte.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.crash import pipeline, scenarios
from tests.crash.kills import outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=pipeline.METHODS)
    parser.add_argument("--what", choices=scenarios.SCENARIOS, default="run", help="what is killed and given again")
    parser.add_argument("--report", action="store_true", help="write the report too, in every run (of --what run)")
    given = parser.parse_args()
    begin, found = time.monotonic(), []
    methods = (given.method,) if given.method else pipeline.METHODS
    scenario = scenarios.run(report=True) if given.what == "run" and given.report else scenarios.SCENARIOS[given.what]
    with tempfile.TemporaryDirectory() as directory:
        for outcome in outcomes(Path(directory), given.kills, given.seed, methods, scenario):
            found.append(outcome)
            print(outcome.line(), flush=True)
    kills = sum(len(outcome.kills) for outcome in found)
    same = sum(len(outcome.kills) for outcome in found if outcome.identical)
    phases = Counter(kill.split(" in ")[1].split()[0] for outcome in found for kill in outcome.kills)
    print("kills by phase: " + ", ".join(f"{name} {count}" for name, count in phases.items()))
    print(f"{same} of {kills} kills ended bit-identical, in {len(found)} runs and {time.monotonic() - begin:.0f} s")
    return 0 if same == kills else 1


if __name__ == "__main__":
    sys.exit(main())
