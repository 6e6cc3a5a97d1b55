"""One side of `benchmarks.sft`: ours_sft DATA LAYERS DTYPE. Prints one JSON line."""

import sys
from pathlib import Path

from benchmarks.sides import Row, print_side
from benchmarks.training_sides import timed
from triphase.demo.embedded import model_directory
from triphase.models.loading import load_model
from triphase.models.roles import SharedModel
from triphase.phases.sft import SupervisedPhase
from triphase.records.reading import read_demonstrations
from triphase.settings.data import SourceSettings
from triphase.settings.phases import SupervisedSettings
from triphase.settings.schema import AdapterSettings, ModelSettings
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

    def work() -> Row:
        phase = SupervisedPhase(shared, samples, range(len(samples)), [], SupervisedSettings(batch_size=BATCH))
        timed(phase.total_steps, phase.advance)
        return {
            "dtype": dtype,
            "adapted_layers": layers,
            "examples": len(samples),
            "tokens": tokens,
        }

    print_side("triphase sft", work, ("tokens_per_second", "tokens"))


if __name__ == "__main__":
    main()
