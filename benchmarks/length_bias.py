"""The remaining length bias of a reward model after planting one: plain, corrected for length, and with two heads.

    python -m benchmarks.length_bias [--seeds 3] [--prompts 160] [--bias 0.3]

On the tiny task: responses of one SFT policy, labeled by the gold score plus a bias for each word. One reward model is
trained on the same labels in each way (`reward.length`: free, residual, two-heads). Measured on other prompts: accuracy
against the labels without the bias, and the correlation of score and length among the responses to one prompt, which
for gold itself is printed beside. Prints the mean over seeds with each seed's value, and, last, one JSON line.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.bad_labels import Golds, Nowhere, other_prompts, sampled
from benchmarks.tiny_task import tiny_settings
from triphase.models.roles import SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.objectives.length import within_group_correlation, within_group_slope
from triphase.phases.reward import RewardPhase
from triphase.phases.two_heads import TwoHeadPhase
from triphase.records.types import Pair
from triphase.runs import pipeline
from triphase.runs.session import prepare
from triphase.settings.phases import RewardSettings
from triphase.tokens.encoding import EncodedGroup
from triphase.training.loop import LoopOptions, run_loop

WAYS = ("free", "residual", "two-heads")
Groups = Sequence[EncodedGroup]


def biased_pairs(groups: Groups, golds: Golds, bias: float) -> list[list[Pair]]:
    """Each pair of a group, the better one by gold plus the bias first in preference."""
    found = []
    for group, gold in zip(groups, golds, strict=True):
        liked = [value + bias * len(ids) for value, ids in zip(gold, group.responses, strict=True)]
        count = range(len(liked))
        found.append([Pair(a, b, float(liked[a] > liked[b])) for a in count for b in count if a < b])
    return found


def lengths_of(groups: Groups) -> tuple[Tensor, Tensor]:
    """(N,) tokens of each response, and (N,) the number of its group."""
    lengths = [len(response) for group in groups for response in group.responses]
    return torch.tensor(lengths), torch.tensor([n for n, group in enumerate(groups) for _ in group.responses])


def judged(
    shared: SharedModel,
    data: tuple[Groups, Sequence[Sequence[Pair]]],
    held: tuple[Groups, Golds],
    reward: RewardSettings,
    seed: int,
) -> tuple[float, float]:
    """Accuracy against the labels of gold, and correlation with length, of a reward model that was trained so."""
    groups, pairs = data
    shared.score_head.load_state_dict(shared.fresh_score_head(seed).state_dict())
    kind = TwoHeadPhase if reward.length == "two-heads" else RewardPhase
    phase = kind(shared, groups, pairs, held[0], [[] for _ in held[0]], reward, seed=seed)
    heldout, phase.heldout = phase.heldout, range(0)  # they are scored once, at the end
    with tempfile.TemporaryDirectory() as folder:
        phase.begin(Path(folder), SilentProgress())
        run_loop(phase, LoopOptions(Path(folder), Nowhere(), keep=1, every=9999))
    scores, (lengths, number) = torch.cat(phase.scores_of(heldout)), lengths_of(held[0])
    if reward.length == "residual":
        slope = within_group_slope(torch.cat(phase.scores_of(phase.trained)), *lengths_of(groups))
        scores = scores - (slope or 0.0) * lengths
    phase.close()
    correlation = within_group_correlation(scores, lengths, number)
    return _accuracy(torch.split(scores, [len(gold) for gold in held[1]]), held[1]), float(correlation or 0.0)


def _accuracy(scores: Sequence[Tensor], golds: Golds) -> float:
    right = [
        float((score[a] > score[b]) == (gold[a] > gold[b]))
        for score, gold in zip(scores, golds, strict=True)
        for a in range(len(gold))
        for b in range(a + 1, len(gold))
        if gold[a] != gold[b]
    ]
    return sum(right) / len(right)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=160)
    parser.add_argument("--bias", type=float, default=0.3)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, prepare(tiny_settings(folder), SilentProgress()) as run:
        pipeline.run_sft(run)
        for seed in range(options.seeds):
            groups, golds = sampled(run, run.prompts("train")[: options.prompts], seed)
            held = sampled(run, other_prompts(run, seed), seed + 1000)
            gold = within_group_correlation(torch.tensor([v for each in held[1] for v in each]), *lengths_of(held[0]))
            found.setdefault("gold itself", []).append((1.0, float(gold or 0.0)))
            pairs = biased_pairs(groups, golds, options.bias)
            for way in WAYS:
                reward = run.settings.reward.model_copy(update={"length": way})
                found.setdefault(way, []).append(judged(run.model(), (groups, pairs), held, reward, seed))
    print(f"{'':12}{'accuracy by gold, %':>32}{'correlation with length':>36}")
    for name, values in found.items():
        accuracy, correlation = ([each[place] for each in values] for place in (0, 1))
        first = f"{100 * sum(accuracy) / len(accuracy):.1f} ({' '.join(f'{100 * each:.1f}' for each in accuracy)})"
        second = f"{sum(correlation) / len(correlation):+.2f} ({' '.join(f'{each:+.2f}' for each in correlation)})"
        print(f"{name:12}{first:>32}{second:>36}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
