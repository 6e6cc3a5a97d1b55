"""The cost of an ensemble of reward models relative to one: training, scoring, and the scoring of a PPO rollout.

    python -m benchmarks.ensembles [--members 4] [--layers 10] [--rankings 32] [--rounds 2]

On the embedded SmolLM2 with random tokens of the demo's lengths, one thread, in processor seconds (other work on the
machine does not count); the least of the rounds, in turn. "scoring" is the reward model alone, from token ids to
scores; "rollout" is what `ppo/seconds_scoring` has: trunk, score, policy, reference and values. Prints a table and,
last, one JSON line.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from triphase.demo.embedded import model_directory
from triphase.models.loading import load_model
from triphase.models.policies import policy_for
from triphase.models.roles import REFERENCE, SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.phases.experience import evaluate_rollout, open_rollout
from triphase.phases.reward import RewardPhase
from triphase.phases.reward_calibration import calibrate, join_members
from triphase.phases.reward_member import alone, members_of
from triphase.records.types import Message, Pair, Prompt
from triphase.rewards.model import ModelScorer
from triphase.rewards.types import Answer, Answers
from triphase.settings.phases import EnsembleSettings, RewardSettings
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import AdapterSettings, ModelSettings
from triphase.tokens.encoding import Encoded, EncodedGroup
from triphase.training.loop import LoopOptions, run_loop

RESPONSES, PROMPT, RESPONSE = 4, (25, 40), (12, 32)
COSTS = ("training", "scoring", "rollout")


class Nowhere:
    """Metrics that nobody keeps."""

    def write(self, step: int, values: object) -> None:
        """Keep nothing."""

    def truncate_after(self, step: int) -> None:
        """Forget nothing."""


def groups_of(count: int, vocabulary: int) -> list[EncodedGroup]:
    """Rankings of random tokens."""
    draw = random.Random(0)

    def tokens(bounds: tuple[int, int]) -> tuple[int, ...]:
        return tuple(draw.randrange(10, vocabulary) for _ in range(draw.randint(*bounds)))

    return [EncodedGroup(tokens(PROMPT), tuple(tokens(RESPONSE) for _ in range(RESPONSES))) for _ in range(count)]


def train(shared: SharedModel, groups: list[EncodedGroup], members: int, directory: Path) -> None:
    """Train so many reward models and make them the one of ``shared``."""
    settings = RewardSettings(ensemble=EnsembleSettings(members=members))
    held = len(groups) // 5
    pairs = [[Pair(a, b, 1.0) for a in range(RESPONSES) for b in range(a + 1, RESPONSES)] for _ in groups]
    shared.ensemble, first = None, None
    found = [alone(shared)] if members == 1 else members_of(shared, range(len(groups) - held), members, seed=0)
    for number, member in enumerate(found):
        phase = RewardPhase(
            shared,
            groups[held:],
            pairs[held:],
            groups[:held],
            pairs[:held],
            settings,
            seed=0,
            member=member,
            like=first,
        )
        place = directory / str(number)
        phase.begin(place, SilentProgress())
        run_loop(phase, LoopOptions(place, Nowhere(), keep=1, every=99))
        if first is None and (head := phase.state.values.head) is not None:
            settings = settings.model_copy(update={"head_penalty": head.penalty})
        first = first or phase
    samples = [Encoded(group.prompt, group.responses[0]) for group in groups]
    if members == 1:
        calibrate(shared, samples, max_tokens=None)
    else:
        join_members(shared, [each.model for each in found], settings.ensemble, samples, max_tokens=None)


def score(shared: SharedModel, samples: list[Encoded]) -> None:
    """The scores of samples, from their token ids."""
    prompt = Prompt("", (Message("user", ""),))
    ModelScorer(shared).score([Answer(prompt, "", True, sample) for sample in samples])


def score_rollout(shared: SharedModel, samples: list[Encoded], settings: PPOSettings) -> None:
    """What PPO does between sampling and its updates."""
    prompt = Prompt("", (Message("user", ""),))
    rollout = open_rollout(shared, samples, settings, seed=0, iteration=0)
    answers = Answers(tuple(Answer(prompt, "", True, sample) for sample in samples), rollout.parts)
    evaluate_rollout(shared, rollout, ModelScorer(shared).score(answers), settings)


def seconds(work: Callable[[], None]) -> float:
    """Processor seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--layers", type=int, default=10, help="adapted layers (adapters.layers)")
    parser.add_argument("--rankings", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = ModelSettings.model_validate({"name": str(model_directory("embedded:smollm2")), "dtype": "float32"})
    shared = SharedModel(load_model(model), AdapterSettings(layers=options.layers), seed=0)
    shared.adapters.add(REFERENCE)
    policy_for(shared, "lora")
    groups = groups_of(options.rankings, 40_000)
    samples = [Encoded(group.prompt, response) for group in groups for response in group.responses][:32]
    ppo = PPOSettings()
    found: dict[str, dict[int, float]] = {cost: {} for cost in COSTS}
    for _ in range(options.rounds):
        for members in (1, options.members):
            with tempfile.TemporaryDirectory() as folder:
                spent = {"training": seconds(lambda: train(shared, groups, members, Path(folder)))}  # noqa: B023
            spent["scoring"] = seconds(lambda: score(shared, samples))
            spent["rollout"] = seconds(lambda: score_rollout(shared, samples, ppo))
            for cost, value in spent.items():
                found[cost][members] = min(value, found[cost].get(members, value))
    print(f"{'':10}{'one':>10}{f'of {options.members}':>10}{'factor':>10}")
    factors = {cost: values[options.members] / values[1] for cost, values in found.items()}
    for cost, values in found.items():
        print(f"{cost:10}{values[1]:>8.1f} s{values[options.members]:>8.1f} s{factors[cost]:>10.2f}")
    print(json.dumps({"members": options.members, "layers": options.layers, "factors": factors}))


if __name__ == "__main__":
    main()
