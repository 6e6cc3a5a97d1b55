"""Tiny worlds whose best policy is known in closed form, and one PPO loop on them with the real objectives.

A world is a tree: a state is a prefix of the response, an action the next token. The policy is a table of logits. The
best policy for E[score] - β·KL to the reference is π*(y) ∝ π_ref(y)·exp(score(y)/β). The steps of PPO in which a fault
can be planted are the fields of ``Method``; its defaults are the sound ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from triphase import objectives

OVER = -1
CLIP_RANGE = 0.2
GAE_LAMBDA = 0.95


@dataclass(frozen=True)
class World:
    """S states, V tokens.

    Attributes:
        next_state: (S, V) int64; OVER where the response ends with this token.
        reference_logits: (S, V).
        scores: (S, V) score of a response that ends here; 0 where it goes on.
        finished: (S, V) True where the response ends by the end token, not by the length limit.
        length_limit: most tokens of a response.
    """

    next_state: Tensor
    reference_logits: Tensor
    scores: Tensor
    finished: Tensor
    length_limit: int


@dataclass(frozen=True)
class Rollout:
    """B responses in R = length_limit + 1 columns, so that there is always a padding slot after the last token."""

    states: Tensor  # (B, R), 0 at padding
    actions: Tensor  # (B, R), 0 at padding
    mask: Tensor  # (B, R)
    finished: Tensor  # (B,)
    scores: Tensor  # (B,)
    rollout_logprobs: Tensor  # (B, R)
    reference_logprobs: Tensor  # (B, R)
    values: Tensor  # (B, R)


def sound_token_rewards(rollout: Rollout, kl_coefficient: float) -> Tensor:
    return objectives.token_rewards(
        rollout.scores,
        rollout.rollout_logprobs,
        rollout.reference_logprobs,
        rollout.mask,
        kl_coefficient=kl_coefficient,
    )


def sound_advantages(rollout: Rollout, token_rewards: Tensor, gae_lambda: float) -> objectives.Advantages:
    return objectives.generalized_advantages(
        token_rewards, rollout.values, rollout.mask, discount=1.0, gae_lambda=gae_lambda
    )


def no_whitening(advantages: Tensor, mask: Tensor) -> Tensor:
    return advantages


@dataclass(frozen=True)
class Method:
    """The steps of one PPO, each replaceable."""

    sampling_temperature: float = 1.0
    training_temperature: float = 1.0
    token_rewards: Callable[[Rollout, float], Tensor] = sound_token_rewards
    advantages: Callable[[Rollout, Tensor, float], objectives.Advantages] = sound_advantages
    whiten: Callable[[Tensor, Tensor], Tensor] = objectives.standardize


SOUND = Method()


def one_token(probabilities: Sequence[float], scores: Sequence[float]) -> World:
    """One token, with these probabilities under the reference, and these scores."""
    return World(
        next_state=torch.full((1, len(scores)), OVER),
        reference_logits=torch.tensor([probabilities]).log(),
        scores=torch.tensor([scores]),
        finished=torch.ones(1, len(scores), dtype=torch.bool),
        length_limit=1,
    )


def bandit() -> World:
    """One token of three."""
    return one_token([0.5, 0.3, 0.2], [0.0, 1.0, 2.0])


def five_arms() -> World:
    """One token of five, the rarest the best: the policy must leave the reference far behind."""
    return one_token([0.35, 0.25, 0.2, 0.15, 0.05], [-0.4, 0.9, 0.1, 1.7, 2.6])


def two_tokens() -> World:
    """Two tokens of two each; state 0 is the start, state 1 + a follows the first token a."""
    return World(
        next_state=torch.tensor([[1, 2], [OVER, OVER], [OVER, OVER]]),
        reference_logits=torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]).log(),
        scores=torch.tensor([[0.0, 0.0], [0.0, 1.0], [2.0, -1.0]]),
        finished=torch.tensor([[False, False], [True, True], [True, True]]),
        length_limit=2,
    )


def variable_length() -> World:
    """Tokens A, B and the end; at most three. Ended: 1 for each A, -0.5 for each B. Cut: -1."""
    end, limit = 2, 3
    prefixes = [prefix for length in range(limit) for prefix in product(range(end), repeat=length)]
    number = {prefix: index for index, prefix in enumerate(prefixes)}
    shape = (len(prefixes), end + 1)
    next_state, scores = torch.full(shape, OVER), torch.zeros(shape)
    finished = torch.zeros(shape, dtype=torch.bool)
    for prefix, state in number.items():
        scores[state, end] = prefix.count(0) - 0.5 * prefix.count(1)
        finished[state, end] = True
        for token in range(end):
            if len(prefix) + 1 < limit:
                next_state[state, token] = number[(*prefix, token)]
            else:
                scores[state, token] = -1.0
    logits = 0.7 * torch.randn(shape, generator=torch.Generator().manual_seed(5))
    return World(next_state, logits, scores, finished, limit)


def every_response(world: World) -> tuple[Tensor, Tensor, Tensor]:
    """States, actions and mask, each (M, R), of all M responses of a world."""
    paths: list[list[tuple[int, int]]] = []

    def walk(path: list[tuple[int, int]], state: int) -> None:
        for action, following in enumerate(world.next_state[state].tolist()):
            longer = [*path, (state, action)]
            if following == OVER:
                paths.append(longer)
            else:
                walk(longer, following)

    walk([], 0)
    width = world.length_limit + 1
    states = torch.tensor([[s for s, _ in path] + [0] * (width - len(path)) for path in paths])
    actions = torch.tensor([[a for _, a in path] + [0] * (width - len(path)) for path in paths])
    mask = torch.tensor([[t < len(path) for t in range(width)] for path in paths])
    return states, actions, mask


def ending(table: Tensor, states: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """(B,) the entry of a table (S, V) at the last token of each response."""
    last = mask.sum(1, keepdim=True) - 1
    return table[states.gather(1, last), actions.gather(1, last)].squeeze(1)


def response_probabilities(world: World, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(M,) probability of every response under a table of logits."""
    states, actions, mask = every_response(world)
    logprobs = (logits / temperature).log_softmax(-1)[states, actions]
    return (logprobs * mask).sum(1).exp()


def best_probabilities(world: World, kl_coefficient: float, temperature: float = 1.0) -> Tensor:
    """(M,) π*: the closed form."""
    reference = response_probabilities(world, world.reference_logits, temperature)
    weights = reference * (ending(world.scores, *every_response(world)) / kl_coefficient).exp()
    return weights / weights.sum()


def total_variation(one: Tensor, other: Tensor) -> float:
    return 0.5 * float((one - other).abs().sum())


def collect(
    world: World, policy: Tensor, values: Tensor, method: Method, size: int, generator: torch.Generator
) -> Rollout:
    """Sample responses, and evaluate them under the policy, the reference and the value table."""
    probabilities = (policy / method.sampling_temperature).softmax(-1)
    states = torch.zeros(size, world.length_limit + 1, dtype=torch.long)
    actions, mask = torch.zeros_like(states), torch.zeros_like(states, dtype=torch.bool)
    state, alive = states[:, 0], torch.ones(size, dtype=torch.bool)
    for column in range(world.length_limit):
        action = torch.multinomial(probabilities[state], 1, generator=generator).squeeze(1)
        states[:, column], actions[:, column], mask[:, column] = state * alive, action * alive, alive
        following = world.next_state[state, action]
        alive = alive & (following != OVER)
        state = following * alive
    return evaluate(world, policy, values, method, states, actions, mask)


def evaluate(
    world: World, policy: Tensor, values: Tensor, method: Method, states: Tensor, actions: Tensor, mask: Tensor
) -> Rollout:
    temperature = method.training_temperature
    return Rollout(
        states=states,
        actions=actions,
        mask=mask,
        finished=ending(world.finished, states, actions, mask),
        scores=ending(world.scores, states, actions, mask),
        rollout_logprobs=objectives.token_logprobs(policy[states], actions, temperature),
        reference_logprobs=objectives.token_logprobs(world.reference_logits[states], actions, temperature),
        values=values[states],
    )


def update_loss(
    policy: Tensor, values: Tensor, rollout: Rollout, advantages: Tensor, returns: Tensor, temperature: float
) -> Tensor:
    """What one epoch minimizes."""
    logprobs = objectives.token_logprobs(policy[rollout.states], rollout.actions, temperature)
    policy_loss, _ = objectives.clipped_policy_loss(
        logprobs, rollout.rollout_logprobs, advantages, rollout.mask, clip_range=CLIP_RANGE
    )
    value_loss, _ = objectives.clipped_value_loss(
        values[rollout.states], rollout.values, returns, rollout.mask, clip_range=None
    )
    return objectives.composite_objective(
        policy_loss, value_loss, torch.zeros(()), value_coefficient=1.0, entropy_coefficient=0.0
    )


def distance_after_ppo(world: World, method: Method, *, kl_coefficient: float, **options: Any) -> float:
    """The total variation distance from π* of a policy after PPO, at the sampling temperature."""
    policy = policy_after_ppo(world, method, kl_coefficient=kl_coefficient, **options)
    temperature = method.sampling_temperature
    return total_variation(
        response_probabilities(world, policy, temperature), best_probabilities(world, kl_coefficient, temperature)
    )


def policy_after_ppo(
    world: World,
    method: Method,
    *,
    kl_coefficient: float,
    seed: int,
    iterations: int = 150,
    learning_rate: float = 0.03,
    batch_size: int = 512,
    epochs: int = 4,
) -> Tensor:
    """The logits (S, V) of a policy that PPO trained from the reference on."""
    generator = torch.Generator().manual_seed(seed)
    policy = world.reference_logits.clone().requires_grad_()
    values = torch.zeros(len(world.next_state), requires_grad=True)
    optimizer = torch.optim.Adam([policy, values], lr=learning_rate, eps=1e-5)
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - iteration / iterations)
        with torch.no_grad():
            rollout = collect(world, policy, values, method, batch_size, generator)
            token_rewards = method.token_rewards(rollout, kl_coefficient)
            estimate = method.advantages(rollout, token_rewards, GAE_LAMBDA)
            advantages = method.whiten(estimate.advantages, rollout.mask)
        for _ in range(epochs):
            loss = update_loss(policy, values, rollout, advantages, estimate.returns, method.training_temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return policy.detach()
