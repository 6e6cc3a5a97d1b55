"""How the critic of PPO starts, and which roles are trained in which iteration."""

import torch
from torch import nn

from triphase.errors import TrainingError
from triphase.models.critics import CRITIC, AdapterCritic, ValueHeadCritic
from triphase.models.policies import Policy
from triphase.models.roles import REFERENCE, REWARD, SharedModel
from triphase.settings.ppo import PPOSettings


@torch.no_grad()
def start_critic(shared: SharedModel, settings: PPOSettings) -> dict[str, nn.Parameter]:
    """Give the model the critic of the settings, if any: the value head at 0, or the score head of a reward model, if
    the critic is a copy of it. Returns the trained tensors of the head, by their names in checkpoints.

    Raises:
        TrainingError: it is to start from a reward model, and there is none (a scorer of a custom kind).
    """
    shared.critic = ValueHeadCritic()
    if not settings.has_critic:
        return {}
    value, score = shared.value_head.linear, shared.score_head.linear
    for parameter in value.parameters():
        parameter.zero_()
    if settings.critic == "adapter":
        from_reward = settings.critic_start == "reward"
        if from_reward and not shared.adapters.has(REWARD):
            raise TrainingError(
                "ppo.critic_start is reward, and this run has no reward model; set ppo.critic_start: policy"
            )
        shared.critic = AdapterCritic(shared.adapters, REWARD if from_reward else REFERENCE)
        if from_reward:
            value.load_state_dict(score.state_dict())
    return {f"value_head.{name}": parameter for name, parameter in shared.value_head.named_parameters()}


def train_roles(shared: SharedModel, policy: Policy, settings: PPOSettings, iteration: int) -> None:
    """Let gradients flow to policy and critic; in the first ``critic_warmup`` iterations to the critic alone."""
    shared.adapters.train_only(CRITIC if settings.critic == "adapter" else None)
    policy.train(iteration >= settings.critic_warmup)
