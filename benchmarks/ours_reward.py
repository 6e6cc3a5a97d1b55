"""One side of `benchmarks.reward`: ours_reward DATA LAYERS DTYPE. Prints one JSON line."""

import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.training_sides import timed
from triphase.embedded.registry import model_directory
from triphase.models.loading import load_model
from triphase.models.roles import REFERENCE, SharedModel
from triphase.phases.reward import RewardPhase
from triphase.records.grouping import groups_of_preferences
from triphase.records.reading import read_preferences
from triphase.settings.schema import AdapterSettings, ModelSettings, RewardSettings, SourceSettings
from triphase.tokens.encoding import encode_groups

BATCH, RANK = 8, 16


def main() -> None:
    """Run and print."""
    data, layers, dtype = sys.argv[1:4]
    model = ModelSettings.model_validate({"name": str(model_directory("embedded:smollm2")), "dtype": dtype})
    adapters = AdapterSettings.model_validate({"layers": layers if layers == "all" else int(layers), "rank": RANK})
    shared = SharedModel(load_model(model), adapters, seed=0)
    shared.adapters.add(REFERENCE)
    groups = groups_of_preferences(read_preferences(SourceSettings(path=data), Path()))
    encoded = encode_groups(groups, shared.template, max_length=1024)
    pairs = sum(len(group.pairs) for group in groups)
    settings = RewardSettings(batch_size=BATCH, head_penalty=None)
    start, start_cpu = time.perf_counter(), time.process_time()
    phase = RewardPhase(shared, encoded, [group.pairs for group in groups], [], [], settings, seed=0)
    timed(phase.total_steps, phase._advance)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    print(
        json.dumps(
            {
                "what": "triphase reward",
                "dtype": dtype,
                "adapted_layers": layers,
                "pairs": pairs,
                "tokens": sum(len(group.prompt) + sum(map(len, group.responses)) for group in encoded),
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu_seconds, 2),
                "pairs_per_second": round(pairs / seconds, 3),
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
