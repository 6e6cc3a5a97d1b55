"""The phases of a run with their parts, constructed on every rank; only rank 0 stores their artifacts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from triphase.models.policies import Policy, policy_for
from triphase.models.roles import SharedModel
from triphase.monitoring.alarm_rules import limits_for
from triphase.monitoring.metrics import FILE_NAME, read_metrics
from triphase.monitoring.samples import FILE_NAME as SAMPLES
from triphase.monitoring.samples import SampleLog
from triphase.phases.engine_trial import EngineTrial
from triphase.phases.guards import AlarmGuard
from triphase.phases.ppo import PPOPhase
from triphase.phases.sft import SupervisedPhase
from triphase.phases.sft_mix import SFTMix, visits
from triphase.records.mixture import Mixture
from triphase.rewards.registry import kind_of
from triphase.runs.engine_choice import chosen_generator
from triphase.runs.result_rows import mixture_figures
from triphase.runs.rounds import continue_policy
from triphase.runs.scoring import shared_scorer
from triphase.runs.session import Run, as_split
from triphase.settings.phase_names import REWARD, ppo_phase
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import encode_prompt
from triphase.training.artifacts import is_whole
from triphase.training.checkpoint_places import CHECKPOINTS
from triphase.training.reward_finals import load_reward_model


def sft_phase(run: Run) -> tuple[SupervisedPhase, dict[str, Any]]:
    """Supervised fine-tuning on the mixture of demonstrations, and the records seen of each kind."""
    settings = run.settings
    sources = run.data.demonstrations()
    heldout = [item for source in sources for item in as_split(source, "heldout")]
    mixture = _mixture(run)
    order = mixture.order(settings.sft.epochs)
    phase = SupervisedPhase(
        run.fresh_model(),
        run.data.encoded(mixture.demonstrations),
        order,
        run.data.encoded(heldout),
        run.settings.sft,  # with the limits on passes of the model just opened
        strategy=run.strategy,
    )
    return phase, mixture_figures(mixture, order, run)


def whole_weights(run: Run, shared: SharedModel) -> dict[str, Tensor] | None:
    """Every weight of a trained model whose layers the ranks have divided, on rank 0; every rank calls this.

    None if they have divided none, and on the other ranks.
    """
    if not run.strategy.shards:
        return None
    model = shared.backbone.model
    trained = {id(weight): name for name, weight in model.named_parameters()}
    whole = run.strategy.whole(dict(model.named_parameters()), on_lead=True)
    if not run.strategy.is_lead:
        return None
    with shared.adapters.removed():  # the names in the files are those without adapters
        return {name: whole[trained[id(weight)]] for name, weight in model.named_parameters()}


@contextmanager
def ppo_phase_of(run: Run, variant: str | None) -> Iterator[PPOPhase]:
    """PPO of the main run or of a variant, with its generator and scorer."""
    shared, prompts = run.model(), run.prompts("train")
    name, settings, strategy = ppo_phase(variant), run.settings.ppo_of(variant), run.strategy
    if not strategy.is_lead and shared.adapters.has(REWARD) and is_whole(run.artifact(REWARD)):
        load_reward_model(shared, run.artifact(REWARD))  # calibrated, as rank 0 has it
    limit, room = run.settings.model.max_length, settings.max_response_tokens
    policy = _policy(run, shared, settings.method)
    continue_policy(run, shared)
    ids = [encode_prompt(prompt, shared.template, room=room, max_length=limit) for prompt in prompts]
    seed = run.settings.seed if settings.seed is None else settings.seed
    trial, serving = EngineTrial(ids, settings, seed=seed), run.part(name, "serving")
    with (
        shared_scorer(run, settings) as scorer,
        chosen_generator(run, policy, name, settings.batch_size, serving, trial) as (generator, engine),
    ):
        if engine is not None and not engine.by_servers and settings.importance_limit is not None:
            run.say("ppo.importance_limit does not apply: this process samples from the policy that it trains")
            settings = settings.model_copy(update={"importance_limit": None})
        phase = PPOPhase(
            shared,
            prompts,
            ids,
            generator,
            settings,
            seed=seed,
            gold=run.gold,
            scorer=scorer,
            guard=_guard(run, variant, settings),
            policy=policy,
            mix=_mix(run, settings),
            continues=bool(run.settings.earlier_rounds),
            ahead=bool(run.settings.rollouts.ahead),
            strategy=strategy,
        )
        phase.state.values.engine = engine
        yield phase


def _policy(run: Run, shared: SharedModel, method: str) -> Policy:
    """The policy at the start; a copy of a divided base is divided too."""
    strategy = run.strategy
    if not strategy.shards or method == "lora":
        return policy_for(shared, method)
    strategy.barrier()  # no rank is in a pass
    return policy_for(shared, method, partial(strategy.shard, beside=True))


def _mix(run: Run, settings: PPOSettings) -> SFTMix | None:
    """The demonstrations of ``ppo.sft_mix``, in the order in which supervised fine-tuning would visit them."""
    if settings.sft_mix == 0:
        return None
    mixture, count = _mixture(run), visits(settings)
    samples = run.data.encoded(mixture.demonstrations)
    order = mixture.order(count / len(samples) + 1)[:count]
    return SFTMix(run.model(), samples, order, settings, strategy=run.strategy)


def _mixture(run: Run) -> Mixture:
    weights = [source.weight for source in run.settings.data.demonstrations]
    trained = [as_split(source, "train") for source in run.data.demonstrations()]
    return Mixture(trained, weights, seed=run.settings.seed)


def _guard(run: Run, variant: str | None, settings: PPOSettings) -> AlarmGuard:
    guards, directory = run.settings.guards, run.part(ppo_phase(variant))
    limits = limits_for(
        settings.kl_budget,
        calibrated=kind_of(settings.scorer).needs_reward_model,
        false_alarms=(guards.false_alarm_rate, settings.iterations),
        looks=guards.looks,
    )
    metrics = directory / FILE_NAME
    samples = SampleLog(directory / SAMPLES)
    return AlarmGuard(
        guards,
        replace(limits, variant=variant),
        lambda: read_metrics(metrics),
        directory / CHECKPOINTS,
        samples=lambda iteration: samples.read(iteration - 1),
        strategy=run.strategy,
    )
