"""Settings of PPO's roles that contradict each other: one sentence each, with the remedy."""

from typing import TYPE_CHECKING

from triphase.settings.scorer import SHIPPED

if TYPE_CHECKING:
    from triphase.settings.ppo import PPOSettings
    from triphase.settings.schema import RunSettings


def critic_conflict(settings: "PPOSettings") -> str | None:
    """What the settings of the critic contradict; None where they go together."""
    if not settings.has_critic and (settings.critic != "value-head" or settings.critic_warmup):
        return (
            f"advantage_estimator {settings.advantage_estimator} has no critic; leave critic and critic_warmup out (in "
            "an arm: critic: value-head, critic_warmup: 0), or choose gae"
        )
    if settings.critic == "value-head":
        for name, idle in (("critic_start", "policy"), ("critic_learning_rate", None)):
            if getattr(settings, name) != idle:
                return (
                    f"{name} {getattr(settings, name)} is of a critic with an adapter of its own, and critic is "
                    f"value-head; set critic: adapter, or leave {name} out"
                )
    if settings.critic_start == "reward" and settings.scorer.chosen in SHIPPED[1:]:
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


def full_weights_conflict(settings: "RunSettings") -> str | None:
    """What does not go together with PPO of all weights; None where nothing stands against it."""
    if settings.model.dtype == "bfloat16":
        return "model.dtype bfloat16 cannot hold its small updates; set model.dtype: float32 (or auto)"
    if settings.rollouts.addresses:
        return "the servers of rollouts.addresses read adapters alone; leave them out, or set method: lora"
    return None
