"""The value of the corrections for bad labels: accuracy on clean labels after training with planted flips.

    python -m benchmarks.bad_labels [--flips 0.2,0.4] [--seeds 3] [--prompts 160]

On the tiny task: responses of one SFT policy, labeled by the gold score; each label is then flipped with a known
probability, and one reward model is trained in each way on the same flipped labels. Accuracy and loss (nats per pair,
of the scores as trained) are those on the clean labels of other prompts. "1 vote" has one flipped label for each pair;
"3 votes" has three, of which the majority, or (soft labels) their mean, is trained on; margins are a third, two or
three thirds by how far gold is apart. Prints tables with the mean over seeds and each seed's difference from the plain
loss of its column, and, last, one JSON line.
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.tiny_task import tiny_settings
from triphase.demo.tiny import WORDS, grammar_gold
from triphase.models.roles import SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.phases.reward import RewardPhase
from triphase.phases.sampling import sample_responses
from triphase.records.types import Message, Pair, Prompt
from triphase.runs import pipeline
from triphase.runs.session import Run, prepare
from triphase.settings.phases import RewardSettings
from triphase.tokens.encoding import EncodedGroup
from triphase.training.loop import LoopOptions, run_loop

RESPONSES, HELD_OUT = 4, 300
Golds = Sequence[Sequence[float]]


class Nowhere:
    """Metrics that nobody keeps."""

    def write(self, step: int, values: object) -> None:
        """Keep nothing."""

    def truncate_after(self, step: int) -> None:
        """Forget nothing."""


def sampled(run: Run, prompts: Sequence[Prompt], seed: int) -> tuple[list[EncodedGroup], Golds]:
    """Groups of distinct responses of the SFT policy, with their gold scores."""
    shared, sampling = run.model(), run.settings.sampling
    found = sample_responses(
        shared,
        prompts,
        adapter=run.reference_adapter,
        model="sft",
        count=RESPONSES,
        temperature=sampling.temperature,
        max_response_tokens=sampling.max_response_tokens,
        max_length=run.settings.model.max_length,
        batch_size=sampling.batch_size,
        seed=seed,
    )
    groups, golds = [], []
    for start in range(0, len(found), RESPONSES):
        members = {each[2].ids: each for each in found[start : start + RESPONSES] if each[2].ids}
        if len(members) > 1:
            prompt = next(iter(members.values()))[0]
            groups.append(EncodedGroup(tuple(shared.template.prompt_ids(prompt.messages)), tuple(members)))
            golds.append([grammar_gold(prompt.text, item.text, item.finished) for _, item, _ in members.values()])
    return groups, golds


def labeled(golds: Golds, flips: float, seed: int, *, votes: int, soft: bool, margins: bool) -> list[list[Pair]]:
    """The pairs of each group with flipped labels; those of equal gold are left out."""
    draw = random.Random(seed)
    distances = sorted(abs(a - b) for group in golds for a, b in _pairs(group))
    thirds = [distances[len(distances) * edge // 3] for edge in (1, 2)]
    found = []
    for group in golds:
        pairs = []
        for first in range(len(group)):
            for second in range(first + 1, len(group)):
                given = [(group[first] > group[second]) != (draw.random() < flips) for _ in range(3)][:votes]
                share = sum(given) / votes
                target = share if soft else float(share > 0.5)
                distance = abs(group[first] - group[second])
                margin = (1 + sum(distance > edge for edge in thirds)) / 3 if margins else 0.0
                if distance > 0:
                    pairs.append(Pair(first, second, target, margin))
        found.append(pairs)
    return found


def _pairs(group: Sequence[float]) -> list[tuple[float, float]]:
    return [(a, b) for number, a in enumerate(group) for b in group[number + 1 :] if a != b]


def other_prompts(run: Run, seed: int) -> list[Prompt]:
    """Prompts of the grammar that nothing was trained on."""
    draw, known = random.Random(seed), {prompt.text for prompt in run.prompts()}
    texts = {" ".join(draw.choices(WORDS, k=3)) for _ in range(2 * HELD_OUT)} - known
    return [Prompt(f"h{place}", (Message("user", text),)) for place, text in enumerate(sorted(texts)[:HELD_OUT])]


def judged(
    shared: SharedModel,
    data: tuple[list[EncodedGroup], list[list[Pair]]],
    held: tuple[list[EncodedGroup], Golds],
    reward: RewardSettings,
    seed: int,
) -> tuple[float, float]:
    """Accuracy and loss against clean labels of a reward model that was trained so."""
    groups, pairs = zip(*[(group, found) for group, found in zip(*data, strict=True) if found], strict=True)
    shared.score_head.load_state_dict(shared.fresh_score_head(seed).state_dict())
    phase = RewardPhase(shared, groups, pairs, held[0], [[] for _ in held[0]], reward, seed=seed)
    phase.heldout = range(0)  # they are scored once, at the end
    with tempfile.TemporaryDirectory() as folder:
        phase.begin(Path(folder), SilentProgress())
        run_loop(phase, LoopOptions(Path(folder), Nowhere(), keep=1, every=9999))
    scores = phase.scores_of(range(len(groups), len(groups) + len(held[0])))
    margins = [
        float(score[a] - score[b]) * math.copysign(1, group[a] - group[b])
        for score, group in zip(scores, held[1], strict=True)
        for a in range(len(group))
        for b in range(a + 1, len(group))
        if group[a] != group[b]
    ]
    phase.close()
    right = sum(margin > 0 for margin in margins) + sum(margin == 0 for margin in margins) / 2
    return right / len(margins), -sum(map(_log_sigmoid, margins)) / len(margins)


def _log_sigmoid(margin: float) -> float:
    return float(torch.nn.functional.logsigmoid(torch.tensor(margin, dtype=torch.float64)))


def ways(flips: float) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Each way by its name: what is labeled, and the settings that differ."""
    one = {"votes": 1, "soft": False, "margins": False}
    return {
        "clean labels, plain": ({**one, "flips": 0.0}, {}),
        "1 vote, plain": (one, {}),
        "1 vote, label_smoothing": (one, {"label_smoothing": flips}),
        "1 vote, flip_rate forward": (one, {"flip_rate": flips}),
        "1 vote, flip_rate unbiased": (one, {"flip_rate": flips, "flip_correction": "unbiased"}),
        "1 vote, margins": ({**one, "margins": True}, {}),
        "3 votes, majority, plain": ({**one, "votes": 3}, {}),
        "3 votes, soft labels": ({**one, "votes": 3, "soft": True}, {}),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", default="0.2,0.4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=160)
    options = parser.parse_args()
    rates = [float(rate) for rate in options.flips.split(",")]
    found: dict[str, dict[str, dict[str, list[float]]]] = {"accuracy": {}, "loss": {}}
    with tempfile.TemporaryDirectory() as folder, prepare(tiny_settings(folder), SilentProgress()) as run:
        pipeline.run_sft(run)
        for seed in range(options.seeds):
            groups, golds = sampled(run, run.prompts("train")[: options.prompts], seed)
            held = sampled(run, other_prompts(run, seed), seed + 1000)
            for flips in rates:
                for name, (labels, changes) in ways(flips).items():
                    pairs = labeled(golds, **{"flips": flips, "seed": seed, **labels})
                    reward = run.settings.reward.model_copy(update=changes)
                    values = judged(run.model(), (groups, pairs), held, reward, seed)
                    for measure, value in zip(found, values, strict=True):
                        found[measure].setdefault(name, {}).setdefault(f"{flips:g}", []).append(value)
    for measure, factor in (("accuracy", 100.0), ("loss", 1.0)):
        _print(measure, factor, found[measure], [f"{rate:g}" for rate in rates])
    print(json.dumps(found))


def _print(
    measure: str, factor: float, found: Mapping[str, Mapping[str, Sequence[float]]], rates: Sequence[str]
) -> None:
    digits = 1 if factor > 1 else 3
    print(f"{measure:28}" + "".join(f"{f'flips {rate}':>30}" for rate in rates))
    for name, by_rate in found.items():
        plain = found["3 votes, majority, plain" if name.startswith("3") else "1 vote, plain"]
        cells = []
        for rate in rates:
            differences = [value - base for value, base in zip(by_rate[rate], plain[rate], strict=True)]
            shown = " ".join(f"{factor * each:+.{digits}f}" for each in differences)
            cells.append(f"{factor * sum(by_rate[rate]) / len(by_rate[rate]):.{digits}f} ({shown})")
        print(f"{name:28}" + "".join(f"{cell:>30}" for cell in cells))


if __name__ == "__main__":
    main()
