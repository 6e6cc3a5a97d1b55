"""One side of `benchmarks.sft`: ours_sft DATA LAYERS DTYPE. Prints one JSON line."""

import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.training_sides import timed
from triphase.embedded.registry import model_directory
from triphase.models.loading import load_model
from triphase.models.roles import SharedModel
from triphase.phases.sft import SupervisedPhase
from triphase.records.reading import read_demonstrations
from triphase.settings.schema import AdapterSettings, ModelSettings, SourceSettings, SupervisedSettings
from triphase.tokens.encoding import encode_demonstrations

BATCH, RANK = 8, 16


def main() -> None:
    """Run and print."""
    data, layers, dtype = sys.argv[1:4]
    model = ModelSettings.model_validate({"name": str(model_directory("embedded:smollm2")), "dtype": dtype})
    adapters = AdapterSettings.model_validate({"layers": layers if layers == "all" else int(layers), "rank": RANK})
    shared = SharedModel(load_model(model), adapters, seed=0)
    demonstrations = read_demonstrations(SourceSettings(path=data), Path())
    samples = encode_demonstrations(demonstrations, shared.template, max_length=1024)
    tokens = sum(sample.length for sample in samples)
    start, start_cpu = time.perf_counter(), time.process_time()
    phase = SupervisedPhase(shared, samples, range(len(samples)), [], SupervisedSettings(batch_size=BATCH))
    timed(phase.total_steps, phase._advance)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    print(
        json.dumps(
            {
                "what": "triphase sft",
                "dtype": dtype,
                "adapted_layers": layers,
                "examples": len(samples),
                "tokens": tokens,
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu_seconds, 2),
                "tokens_per_second": round(tokens / seconds, 1),
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
