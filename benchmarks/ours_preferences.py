"""One side of `benchmarks.preferences`: ours_preferences TRAINED HELDOUT LAYERS DTYPE SEED. Prints one JSON line."""

import json
import sys
import time
from pathlib import Path

import torch

from benchmarks.grouping import groups_of_preferences
from benchmarks.sides import Row
from benchmarks.training_sides import timed
from triphase.demo.embedded import model_directory
from triphase.models.loading import load_model
from triphase.models.roles import REFERENCE, SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.phases.reward import RewardPhase
from triphase.records.reading import read_preferences
from triphase.records.types import RankedGroup
from triphase.settings.data import SourceSettings
from triphase.settings.phases import RewardSettings
from triphase.settings.schema import AdapterSettings, ModelSettings
from triphase.tokens.encoding import encode_groups

BATCH, RANK = 8, 16


def main() -> None:
    """Fit the head, judge it, train the adapter, judge both, print."""
    trained, heldout, layers, dtype, seed = sys.argv[1:6]
    model = ModelSettings.model_validate({"name": str(model_directory("embedded:smollm2")), "dtype": dtype})
    adapters = AdapterSettings.model_validate({"layers": layers if layers == "all" else int(layers), "rank": RANK})
    shared = SharedModel(load_model(model), adapters, seed=int(seed))
    shared.adapters.add(REFERENCE)
    groups, judged = _groups(trained), _groups(heldout)
    phase = RewardPhase(
        shared,
        encode_groups(groups, shared.template, max_length=1024),
        [group.pairs for group in groups],
        encode_groups(judged, shared.template, max_length=1024),
        [group.pairs for group in judged],
        RewardSettings(batch_size=BATCH),
        seed=int(seed),
    )
    heldout, phase.heldout = phase.heldout, range(0)  # the peer's time is that of training alone
    start, start_cpu = time.perf_counter(), time.process_time()
    phase.fit_head(SilentProgress())
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    head = _margins(phase, judged, heldout)
    start, start_cpu = time.perf_counter(), time.process_time()
    timed(phase.total_steps, phase.advance)
    seconds, cpu_seconds = seconds + time.perf_counter() - start, cpu_seconds + time.process_time() - start_cpu
    row: Row = {
        "what": "triphase",
        "layers": layers,
        "dtype": dtype,
        "learning_rate": phase.settings.optimizer.learning_rate,
        "seed": int(seed),
        "penalty": phase.state.values.head.penalty,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "margins": {"head": head, "adapter": _margins(phase, judged, heldout)},
    }
    print(json.dumps(row))


def _groups(path: str) -> list[RankedGroup]:
    return groups_of_preferences(read_preferences(SourceSettings(path=path), Path()))


@torch.no_grad()
def _margins(phase: RewardPhase, groups: list[RankedGroup], members: range) -> list[float]:
    """Score differences chosen − rejected, one for each group of two responses."""
    return [
        float(scores[pair.first] - scores[pair.second])
        for group, scores in zip(groups, phase.scores_of(members), strict=True)
        for pair in group.pairs
    ]


if __name__ == "__main__":
    main()
