"""One step of every phase on a device, and its results, which are the same on all devices.

`tests.devices.counted` runs them on a pretended card, `tests.gpu` on a real one.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from tests.small import ByHand, random_model, samples, tokenizer

from triphase.models import quantization
from triphase.models.backbone import layers_of
from triphase.models.loading import LoadedModel
from triphase.models.members import WITNESS, RewardMember
from triphase.models.policies import policy_for
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.models.stepping import WholeStepper
from triphase.phases.ppo import PPOPhase
from triphase.phases.reward import RewardPhase
from triphase.phases.reward_calibration import calibrate, join_members, take_length_off
from triphase.phases.reward_member import Member, members_of
from triphase.phases.sampling import sample_responses
from triphase.phases.sft import SupervisedPhase
from triphase.phases.sft_mix import SFTMix, visits
from triphase.phases.two_heads import TwoHeadPhase
from triphase.records.types import Message, Pair, Prompt
from triphase.rewards.model import score_samples
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.probing import logprobs_of
from triphase.rollouts.types import Generated, Request
from triphase.runs.evaluation import sequence_kl
from triphase.settings.phases import AVERAGE, EnsembleSettings, OptimizerSettings, RewardSettings, SupervisedSettings
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import AdapterSettings
from triphase.tokens.encoding import Encoded, EncodedGroup
from triphase.training.distributed.types import ALONE, Strategy

Metrics = dict[str, float]
TEXTS = ("oak", "red pine", "elm fir two", "ash", "one grey larch", "maple", "three")
around_step: Callable[[], AbstractContextManager[Any]] = nullcontext
"""Entered around each step itself, without what comes before it; whoever wants to count puts something here."""
_OPTIMIZER = OptimizerSettings(learning_rate=2e-3, head_learning_rate=4e-3, schedule="constant")


def shared_on(
    device: torch.device | str,
    kind: str = "llama",
    dtype: torch.dtype = torch.float32,
    *,
    strategy: Strategy = ALONE,
    recompute: bool = False,
    quantized_to: str | None = None,
    **config: Any,
) -> SharedModel:
    """The roles on a small decoder that lives on ``device``, each adapter with an update that changes something."""
    model = random_model(kind, **config).to(device, dtype)
    if quantized_to is not None:
        quantization.quantize(model, quantized_to, device)
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
    phase = SupervisedPhase(shared, made, list(range(len(made))), made, settings)
    with around_step():
        return phase.advance(0)


def sft_full(shared: SharedModel) -> Metrics:
    """One step of all weights."""
    return sft(shared, "full")


def reward_phase(
    shared: SharedModel,
    member: Member | None = None,
    like: RewardPhase | None = None,
    kind: type[RewardPhase] = RewardPhase,
) -> RewardPhase:
    """The reward model on small rankings."""
    draw = random.Random(0)
    groups = []
    for _ in range(6):
        prompt = tuple(draw.randrange(8, 26) for _ in range(draw.randint(2, 5)))
        bodies = [tuple(draw.randrange(8, 26) for _ in range(5)) for _ in range(3)]
        groups.append(EncodedGroup(prompt, tuple((*body, 1) for body in bodies)))
    pairs = [[Pair(0, 1, 1.0), Pair(0, 2, 1.0), Pair(1, 2, 0.5)] for _ in groups]
    # The penalty that is chosen by cross-validation is chosen on the processor.
    settings = RewardSettings(batch_size=4, head_penalty=1.0, optimizer=_OPTIMIZER, microbatch_tokens=60)
    rankings = (groups[:4], pairs[:4], groups[4:], pairs[4:])
    return kind(shared, *rankings, settings, seed=0, member=member, like=like)


def reward(shared: SharedModel) -> Metrics:
    """One step on rankings."""
    phase = reward_phase(shared)
    with around_step():
        return phase.advance(0)


def two_heads(shared: SharedModel) -> Metrics:
    """One step with a head for length, over trunk states in a file."""
    shared.adapter_settings = shared.adapter_settings.model_copy(update={"trunk_cache_gb": 0.0})
    phase = reward_phase(shared, kind=TwoHeadPhase)
    with around_step():
        return phase.advance(0)


def averaged(shared: SharedModel) -> Metrics:
    """The mean of two members' weights, and its scores."""
    members = members_of(shared, [(number,) for number in range(4)], 2, seed=0)
    for member in members:
        reward_phase(shared, member).advance(0)
    settings = EnsembleSettings(members=2, combine=AVERAGE)
    references = encoded_of(shared)
    with around_step():
        found = join_members(shared, [member.model for member in members], settings, references, max_tokens=60)
        scores = score_samples(shared, references, max_tokens=60)
    return {"mean": found.mean, "deviation": found.standard_deviation, "score": float(scores[0])}


def with_ensemble(shared: SharedModel) -> Metrics:
    """A step of each of two members, fitted heads, a witness, their calibration, and PPO with the score of both."""
    members = members_of(shared, [(number,) for number in range(4)], 2, seed=0)
    witness = RewardMember(WITNESS, shared.fresh_score_head(0, WITNESS))
    first: RewardPhase | None = None
    found: Metrics = {}
    for number, member in enumerate([*members, Member(witness, apart=(WITNESS,))]):
        phase = reward_phase(shared, member, None if number == 2 else first)
        first = first or phase
        phase.start()
        found |= {f"{number}/{name}": value for name, value in phase.advance(0).items()}
    references, models = encoded_of(shared), [member.model for member in members]
    join_members(shared, models, EnsembleSettings(members=2, combine="mean-minus-variance"), references, max_tokens=60)
    take_length_off(shared, 0.01, references, max_tokens=60)
    shared.witness = witness
    calibrate(shared, references, max_tokens=60, member=witness)
    return found | ppo(shared)


def prompts_of(shared: SharedModel) -> tuple[list[Prompt], list[tuple[int, ...]]]:
    """Prompts and their ids."""
    prompts = [Prompt(text, (Message("user", text),)) for text in TEXTS]
    return prompts, [tuple(shared.template.prompt_ids(prompt.messages)) for prompt in prompts]


def ppo_phase(shared: SharedModel, *, is_served: bool = False, **changes: Any) -> PPOPhase:
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
    settings = PPOSettings.model_validate(values | changes)
    policy = policy_for(shared, settings.method)
    local = LocalGenerator(policy.model, adapter=policy.adapter, batch_size=8)
    mix = None
    if settings.sft_mix:
        demonstrations = encoded_of(shared)
        order = [number % len(demonstrations) for number in range(visits(settings))]
        mix = SFTMix(shared, demonstrations, order, settings)
    generator = Served(local, shared) if is_served else local
    return PPOPhase(shared, prompts, ids, generator, settings, seed=0, policy=policy, mix=mix)


class Served:
    """Samples as a server does, with the log-probabilities of its own arithmetic."""

    def __init__(self, local: LocalGenerator, shared: SharedModel) -> None:
        self._local, self._shared = local, shared

    def generate(self, requests: Sequence[Request], **options: Any) -> list[Generated]:
        """See `Generator`."""
        return [
            replace(each, logprobs=tuple(self._logprobs(request.prompt, each.ids)))
            for request, each in zip(requests, self._local.generate(requests, **options), strict=True)
        ]

    def _logprobs(self, prompt: tuple[int, ...], ids: tuple[int, ...]) -> list[float]:
        return logprobs_of(self._shared, self._local.adapter, (*prompt, *ids))[len(prompt) - 1 :]


def ppo_later(shared: SharedModel) -> Metrics:
    """A later iteration: sampled by a server, with demonstrations, a reference that is reset, and its own scale of the
    scores."""
    phase = ppo_phase(
        shared,
        is_served=True,
        importance_limit=2.0,
        sft_mix=0.5,
        reference_reset_every=1,
        score_normalization="running",
        rescale_token_rewards=True,
        microbatch_tokens=30,
    )
    with around_step():
        return phase.advance(1)


def ppo(shared: SharedModel, **changes: Any) -> Metrics:
    """One iteration: rollout, scores, advantages, update."""
    phase = ppo_phase(shared, **changes)
    with around_step():
        return phase.advance(0)


def ppo_full(shared: SharedModel) -> Metrics:
    """One iteration of PPO with full weights and a critic with its own adapter."""
    return ppo(shared, method="full", critic="adapter", critic_start="reward", entropy_coefficient=0.01)


def quantized(shared: SharedModel) -> Metrics:
    """PPO over a base in eight bits."""
    with patch.object(quantization, "_packing_of", lambda kind: ByHand()):
        quantization.quantize(shared.backbone.model, "int8")
    return ppo(shared)


def evaluation(shared: SharedModel) -> Metrics:
    """How far sampled responses are from the reference, as the evaluation asks it."""
    shared.adapters.load(POLICY, {name: 1.5 * value for name, value in shared.adapters.state(REFERENCE).items()})
    settings = SimpleNamespace(ppo=PPOSettings(microbatch_tokens=60))
    run = cast(Any, SimpleNamespace(reference_adapter=REFERENCE, settings=settings))
    with around_step():
        found = sequence_kl(run, shared, (shared, POLICY), encoded_of(shared), temperature=1.0)
    return {str(number): value for number, value in enumerate(found)}


def sampling(shared: SharedModel) -> Metrics:
    """Responses of the SFT policy, as the labeling and evaluation ask for them, and their scores."""
    prompts, _ = prompts_of(shared)
    with around_step():
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


def sampling_whole(shared: SharedModel) -> Metrics:
    """The same by a pass over the whole text for each token."""
    shared._stepper = WholeStepper
    return sampling(shared)


STEPS: dict[str, Callable[[SharedModel], Metrics]] = {
    "sft": sft,
    "sft-full": sft_full,
    "reward": reward,
    "reward-two-heads": two_heads,
    "sampling": sampling,
    "sampling-whole": sampling_whole,
    "ppo": ppo,
    "ppo-groups": partial(ppo, responses_per_prompt=4, entropy_coefficient=0.01),
    "ppo-rloo": partial(ppo, advantage_estimator="rloo", responses_per_prompt=2),
    "ppo-grpo": partial(ppo, advantage_estimator="grpo", responses_per_prompt=2),
    "ppo-reinforce": partial(ppo, advantage_estimator="reinforce"),
    "ppo-critic": partial(ppo, critic="adapter", critic_warmup=1),
    "ppo-full": ppo_full,
    "ppo-quantized": quantized,
    "ppo-later": ppo_later,
    "ppo-gemma2": partial(ppo, responses_per_prompt=2),
    "ensemble": with_ensemble,
    "ensemble-average": averaged,
    "evaluation": evaluation,
}

MODELS: dict[str, dict[str, Any]] = {
    "sampling-whole": {"kind": "gpt2"},
    "ppo-gemma2": {"kind": "gemma2", "recompute": True, "sliding_window": 8, "final_logit_softcapping": 2.0},
}
"""What a step's model is, if it is not the usual one."""


def model_of(name: str, device: torch.device | str) -> SharedModel:
    """The model of a step."""
    return shared_on(device, **MODELS.get(name, {}))
