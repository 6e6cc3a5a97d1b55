"""Conflicts between settings of PPO's roles: one sentence each, with the remedy."""

import logging
from typing import TYPE_CHECKING

from triphase.settings.scorer import SHIPPED

if TYPE_CHECKING:
    from triphase.settings.ppo import PPOSettings
    from triphase.settings.schema import RunSettings

_log = logging.getLogger(__name__)


def critic_conflict(settings: "PPOSettings") -> str | None:
    """The conflict of the critic's settings; None if they are compatible."""
    if not settings.has_critic and (settings.critic != "value-head" or settings.critic_warmup):
        return (
            f"advantage_estimator {settings.advantage_estimator} has no critic; leave critic and "
            f"critic_warmup out (in a variant: critic: value-head, critic_warmup: 0), or choose gae"
        )
    if settings.critic == "value-head":
        for name, idle in (("critic_start", "policy"), ("critic_learning_rate", None)):
            if getattr(settings, name) != idle:
                return (
                    f"{name} {getattr(settings, name)} applies to a critic with its own adapter, "
                    f"but critic is value-head; set critic: adapter, or leave {name} out"
                )
    if settings.critic_start == "reward" and settings.scorer.chosen in SHIPPED and not settings.scorer.by_reward_model:
        return (
            f"critic_start reward needs a reward model, and a scorer of kind {settings.scorer.chosen} scores in its "
            "place; set critic_start: policy"
        )
    if settings.critic_warmup >= settings.iterations:
        return (
            f"critic_warmup {settings.critic_warmup} leaves the policy none of the {settings.iterations} iterations; "
            "lower it, or raise iterations"
        )
    return None


def require_weights_fit(settings: "RunSettings") -> None:
    """Check the compatibility of settings about how the weights are trained, divided and stored.

    Raises:
        ValueError: two settings conflict.
    """
    require_full_weights_fit(settings)
    require_shardable(settings)
    require_quantization_fits(settings)
    require_whole_layers(settings)
    require_rollouts_fit(settings)


def reset_conflict(settings: "PPOSettings") -> str | None:
    """The conflict of the settings of a reset reference; None if they are compatible."""
    every = settings.reference_reset_every
    if every is None:
        return None
    if settings.method == "full":
        return (
            f"reference_reset_every {every} copies the policy's adapter, but method full has none; leave it out, or "
            "set method: lora"
        )
    if every >= settings.iterations:
        return (
            f"reference_reset_every {every} is not reached in {settings.iterations} iterations; lower it, or leave it "
            "out"
        )
    return None


def require_demonstrations_to_mix(settings: "RunSettings") -> None:
    """Check that there are demonstrations if PPO or a variant adds their loss.

    Raises:
        ValueError: there are none.
    """
    if settings.data.demonstrations:
        return
    for variant in (None, *settings.variants):
        if (mix := settings.ppo_of(variant).sft_mix) > 0:
            name = "ppo.sft_mix" if variant is None else f"variants.{variant}.sft_mix"
            raise ValueError(
                f"{name} is {mix:g}, and data.demonstrations is empty; name demonstrations to mix in, or set {name}: 0"
            )


def require_full_weights_fit(settings: "RunSettings") -> None:
    """Check the compatibility of settings with PPO of all weights, in the main run or a variant.

    Raises:
        ValueError: a setting conflicts with it.
    """
    methods = {variant: settings.ppo_of(variant).method for variant in (None, *settings.variants)}
    for variant in (variant for variant, method in methods.items() if method == "full"):
        name = "ppo.method" if variant is None else f"variants.{variant}.method"
        if settings.model.dtype == "bfloat16":
            raise ValueError(
                f"{name} is full, and model.dtype bfloat16 cannot hold its small updates; set model.dtype: float32"
            )
        if settings.rollouts.by_servers:
            raise ValueError(
                f"{name} is full, but the servers of {_servers(settings)} load only adapters; leave them out, or set "
                f"{name}: lora"
            )


def note_lost_updates(settings: "RunSettings") -> None:
    """Log that supervised fine-tuning of all weights loses updates, if its weights are in bfloat16."""
    if settings.sft_method == "full" and settings.model.dtype == "bfloat16":
        _log.warning("sft.method is full, and model.dtype bfloat16 rounds most of its small updates away, unless "
                     "learning rates are high; set model.dtype: float32 if memory allows")  # fmt: skip


def require_shardable(settings: "RunSettings") -> None:
    """Check that settings of a base that is divided among processes do not apply to one that is not.

    Raises:
        ValueError: one does.
    """
    if settings.parallel.strategy != "fsdp2" and settings.parallel.cpu_offload:
        raise ValueError(
            f"parallel.cpu_offload moves parts of a sharded base, but parallel.strategy is "
            f"{settings.parallel.strategy}; set it to fsdp2, or parallel.cpu_offload: false"
        )


def require_quantization_fits(settings: "RunSettings") -> None:
    """Check the compatibility of settings with a quantized base.

    Raises:
        ValueError: a setting conflicts with it.
    """
    kind = settings.model.quantization
    if kind is None:
        return
    whole = "sft.method" if settings.sft_method == "full" else "ppo.method" if settings.trains_whole else None
    if whole is not None:
        raise ValueError(
            f"model.quantization is {kind}, and {whole} full trains the weights that quantization freezes; set "
            "lora, or leave model.quantization out"
        )
    if settings.parallel.strategy == "fsdp2":
        raise ValueError(
            f"model.quantization is {kind}, but parallel.strategy fsdp2 shards weights, not "
            f"quantized codes; set replicated, or "
            "leave one of the two out"
        )
    if settings.rollouts.by_servers:
        raise ValueError(
            f"model.quantization is {kind}, and the servers of {_servers(settings)} load the "
            f"unquantized base, so they would sample from another policy; leave one of the two out"
        )


def require_whole_layers(settings: "RunSettings") -> None:
    """Check that no setting moves or compiles layers that are divided among processes.

    Raises:
        ValueError: one does.
    """
    if settings.parallel.strategy != "fsdp2":
        return
    for name in ("offload", "compile_layers"):
        if getattr(settings.model, name):
            raise ValueError(
                f"model.{name} is true, but parallel.strategy fsdp2 divides the layers among processes; "
                f"set replicated, or leave model.{name} out"
            )


def require_rounds_fit(settings: "RunSettings") -> None:
    """Check the compatibility of settings with further rounds.

    Raises:
        ValueError: nobody ranks here, the reward model is another run's or absent, or all weights are trained.
    """
    if settings.rounds == 1 and not settings.earlier_rounds:
        return
    remedy = "set rounds: 1"
    if settings.labeling.source not in ("people", "simulated"):
        remedy = f"labeling.source is {settings.labeling.source}; have people (or simulated labelers) rank, or {remedy}"
    elif settings.reward.taken_from is not None:
        remedy = f"reward.from takes it from {settings.reward.taken_from}; leave that out, or {remedy}"
    elif settings.ppo.scorer.chosen in SHIPPED and not settings.ppo.scorer.by_reward_model:
        remedy = f"ppo.scorer {settings.ppo.scorer.chosen} scores in its place; leave that out, or {remedy}"
    elif settings.ppo.method == "full":
        remedy = f"the next round continues from an adapter, but ppo.method is full; set it to lora, or {remedy}"
    else:
        return
    raise ValueError(f"rounds: each round ranks samples of the newest policy and retrains the reward model: {remedy}")


_HIGHEST_RANK = 512
"""vLLM's limit on the rank of adapters."""
_LOWEST_TEMPERATURE = 0.01
"""vLLM uses a lower one for this, and reports it only in its log."""


def require_rollouts_fit(settings: "RunSettings") -> None:
    """Check the compatibility of settings with generation servers, in the main run or a variant.

    Raises:
        ValueError: a setting conflicts with them, or needs them and there are none.
    """
    by_servers = settings.rollouts.by_servers
    for variant in (None, *settings.variants):
        name = "ppo.importance_limit" if variant is None else f"variants.{variant}.importance_limit"
        ppo = settings.ppo_of(variant)
        limit = ppo.importance_limit
        if by_servers and ppo.temperature < _LOWEST_TEMPERATURE:
            raise ValueError(
                f"{name.replace('importance_limit', 'temperature')} {ppo.temperature:g} is below "
                f"{_LOWEST_TEMPERATURE:g}, the lowest that vLLM samples at; raise it, or leave rollouts out"
            )
        if limit is None and settings.rollouts.ahead:
            raise ValueError(
                f"rollouts.ahead is 1: samples of the previous policy need importance weights; set {name} "
                "(usually 2), or rollouts.ahead: 0"
            )
        if limit is not None and not by_servers:
            raise ValueError(
                f"{name} {limit:g} weights samples of servers, but rollouts has none: this "
                f"process samples from the policy that it trains; leave it out"
            )
    if settings.rollouts.sampling and settings.sampling.temperature < _LOWEST_TEMPERATURE:
        raise ValueError(
            f"sampling.temperature {settings.sampling.temperature:g} is below {_LOWEST_TEMPERATURE:g}, the lowest that "
            "vLLM samples at; raise it, or set rollouts.sampling: false"
        )
    if settings.rollouts.servers and settings.model.adapter is not None:
        raise ValueError(
            f"rollouts.servers load the base from its files, but model.adapter "
            f"{settings.model.adapter} is merged into it; write the merged model with `triphase "
            f"export` and set model.name to it, or leave rollouts out"
        )
    if by_servers and settings.adapters.rank > _HIGHEST_RANK:
        raise ValueError(
            f"adapters.rank {settings.adapters.rank} is above {_HIGHEST_RANK}, the highest that "
            f"vLLM supports; lower it, "
            "or leave rollouts out"
        )


def _servers(settings: "RunSettings") -> str:
    addresses = settings.rollouts.addresses
    return f"rollouts.addresses ({addresses[0]})" if addresses else "rollouts.servers"
