"""One step of every phase on a device, and what it measured: the same on all of them.

As a program it runs each phase on the pretended card of `tests.devices.card` and prints, as JSON, its metrics there
and on the processor, and how often the processor waited for the card.
"""

import json
import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from tests.small import random_model, samples, tokenizer

from triphase.models.backbone import layers_of
from triphase.models.loading import LoadedModel
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.phases.ppo import PPOPhase
from triphase.phases.reward import RewardPhase
from triphase.phases.sampling import sample_responses
from triphase.phases.sft import SupervisedPhase
from triphase.records.types import Message, Pair, Prompt
from triphase.rewards.model import score_samples
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.phases import OptimizerSettings, RewardSettings, SupervisedSettings
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import AdapterSettings
from triphase.tokens.encoding import Encoded, EncodedGroup
from triphase.training.distributed.types import ALONE, Strategy

Metrics = dict[str, float]
TEXTS = ("oak", "red pine", "elm fir two", "ash", "one grey larch", "maple", "three")
_OPTIMIZER = OptimizerSettings(learning_rate=2e-3, head_learning_rate=4e-3, schedule="constant")


def shared_on(
    device: torch.device | str,
    kind: str = "llama",
    dtype: torch.dtype = torch.float32,
    *,
    strategy: Strategy = ALONE,
    recompute: bool = False,
) -> SharedModel:
    """The roles on a small decoder that lives on ``device``, each adapter with an update that changes something."""
    model = random_model(kind).to(device, dtype)
    model.tie_weights()  # moved to a device of others, the two names of the embedding are two tensors
    if strategy.shards:
        strategy.load_together(None)
        strategy.shard(layers_of(model.requires_grad_(False)), torch.device(device))
    loaded = LoadedModel(model, tokenizer(), "small", recompute_activations=recompute, sharded=strategy.shards)
    shared = SharedModel(loaded, AdapterSettings(layers=2, rank=4, alpha=8.0), seed=0)
    for number, adapter in enumerate((REFERENCE, REWARD)):
        shared.adapters.add(adapter)
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for name, parameter in shared.adapters.parameters(adapter).items():
                if "lora_B" in name:
                    parameter.copy_((0.2 * torch.randn(parameter.shape, generator=draw)).to(parameter.device))
    return shared


def encoded_of(shared: SharedModel) -> list[Encoded]:
    """Samples that need more than one microbatch."""
    return samples(10, response=(1, 9))


def sft(shared: SharedModel, method: str = "lora") -> Metrics:
    """One step on demonstrations."""
    made = encoded_of(shared)
    settings = SupervisedSettings(batch_size=10, epochs=1, optimizer=_OPTIMIZER, method=method, microbatch_tokens=60)
    return SupervisedPhase(shared, made, list(range(len(made))), made, settings).advance(0)


def sft_full(shared: SharedModel) -> Metrics:
    """One step of all weights."""
    return sft(shared, "full")


def reward(shared: SharedModel) -> Metrics:
    """One step on rankings."""
    draw = random.Random(0)
    groups = []
    for _ in range(6):
        prompt = tuple(draw.randrange(8, 26) for _ in range(draw.randint(2, 5)))
        bodies = [tuple(draw.randrange(8, 26) for _ in range(5)) for _ in range(3)]
        groups.append(EncodedGroup(prompt, tuple((*body, 1) for body in bodies)))
    pairs = [[Pair(0, 1, 1.0), Pair(0, 2, 1.0), Pair(1, 2, 0.5)] for _ in groups]
    settings = RewardSettings(batch_size=4, optimizer=_OPTIMIZER, microbatch_tokens=60)
    return RewardPhase(shared, groups[:4], pairs[:4], groups[4:], pairs[4:], settings, seed=0).advance(0)


def prompts_of(shared: SharedModel) -> tuple[list[Prompt], list[tuple[int, ...]]]:
    """Prompts and their ids."""
    prompts = [Prompt(text, (Message("user", text),)) for text in TEXTS]
    return prompts, [tuple(shared.template.prompt_ids(prompt.messages)) for prompt in prompts]


def ppo_phase(shared: SharedModel, **changes: Any) -> PPOPhase:
    """PPO on the small prompts."""
    values = {
        "iterations": 3,
        "batch_size": 8,
        "minibatch_size": 4,
        "epochs": 2,
        "max_response_tokens": 7,
        "microbatch_tokens": 60,
        "max_approximate_kl": None,
        "optimizer": _OPTIMIZER,
    }
    prompts, ids = prompts_of(shared)
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=8)
    return PPOPhase(shared, prompts, ids, generator, PPOSettings.model_validate(values | changes), seed=0)


def ppo(shared: SharedModel) -> Metrics:
    """One iteration: rollout, scores, advantages, update."""
    return ppo_phase(shared).advance(0)


def ppo_groups(shared: SharedModel) -> Metrics:
    """One iteration with four responses to a prompt, whose prompt is read once."""
    return ppo_phase(shared, responses_per_prompt=4, entropy_coefficient=0.01).advance(0)


def sampling(shared: SharedModel) -> Metrics:
    """Responses of the SFT policy, as the labeling and evaluation ask for them, and their scores."""
    prompts, _ = prompts_of(shared)
    found = sample_responses(
        shared,
        prompts,
        adapter=REFERENCE,
        model="sft",
        count=2,
        temperature=1.0,
        max_response_tokens=7,
        max_length=64,
        batch_size=4,
        seed=0,
    )
    encoded = [Encoded(tuple(shared.template.prompt_ids(prompt.messages)), made.ids) for prompt, _, made in found]
    scores = score_samples(shared, encoded, max_tokens=60)
    # The ids themselves, weighed by their places: another token gives another number.
    ids = sum(place * token for _, _, made in found for place, token in enumerate(made.ids, 1))
    return {"ids": float(ids), "mean_score": float(sum(scores) / len(scores))}


STEPS: dict[str, Callable[[SharedModel], Metrics]] = {
    "sft": sft,
    "sft-full": sft_full,
    "reward": reward,
    "sampling": sampling,
    "ppo": ppo,
    "ppo-groups": ppo_groups,
}


def main() -> None:
    """All steps on the card and on the processor."""
    from tests.devices import card

    device = card.install()  # before the first backward, which makes a thread for each device that there is
    on_processor = {name: step(shared_on("cpu")) for name, step in STEPS.items()}
    found = {}
    for name, step in STEPS.items():
        shared = shared_on(device)
        shared.stepper(None)  # compared with the full pass, once
        try:
            with card.watching() as watch:
                metrics = step(shared)
        except card.MixedDevicesError as error:
            found[name] = {"error": str(error)}
            continue
        counts = {"waits": dict(watch.waits), "uploads": watch.uploads}
        found[name] = {"card": metrics, "processor": on_processor[name], **counts}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
