"""One side of `benchmarks.reward`: ours_reward DATA LAYERS DTYPE. Prints one JSON line."""

import sys
from pathlib import Path

from benchmarks.grouping import groups_of_preferences
from benchmarks.sides import Row, print_side
from benchmarks.training_sides import timed
from triphase.demo.embedded import model_directory
from triphase.models.loading import load_model
from triphase.models.roles import REFERENCE, SharedModel
from triphase.phases.reward import RewardPhase
from triphase.records.reading import read_preferences
from triphase.settings.data import SourceSettings
from triphase.settings.phases import RewardSettings
from triphase.settings.schema import AdapterSettings, ModelSettings
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

    def work() -> Row:
        phase = RewardPhase(shared, encoded, [group.pairs for group in groups], [], [], settings, seed=0)
        timed(phase.total_steps, phase.advance)
        return {
            "dtype": dtype,
            "adapted_layers": layers,
            "pairs": pairs,
            "tokens": sum(len(group.prompt) + sum(map(len, group.responses)) for group in encoded),
        }

    print_side("triphase reward", work, ("pairs_per_second", "pairs"))


if __name__ == "__main__":
    main()
