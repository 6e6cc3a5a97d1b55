"""The rollouts of PPO: each sampled when it is needed or, by servers, during the iteration before.

With π_i the policy at the start of iteration i, rollout 0 is sampled by π_0. Sampled ahead, rollout i + 1 is sampled by
π_i while iteration i trains π_i to π_{i+1}: it is one iteration stale, never more.

A checkpoint contains π_i for the rollout in flight, and the seeds follow from the iteration: whatever was in flight
when a run ended is sampled again by the same policy, with the same seeds. After a rollback it is discarded, and the
next rollout is sampled by the policy that was restored.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from triphase.models.policies import Policy
from triphase.phases.episodes import prompts_of, requests_of
from triphase.phases.ppo_state import PPOState
from triphase.rollouts.trunk_record import TrunkGenerator
from triphase.rollouts.types import AheadGenerator, Generated, Generator
from triphase.settings.ppo import PPOSettings
from triphase.training.state import TrainingState

_PREFIX = "sampler."
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TakenRollout:
    """The rollout of an iteration.

    Attributes:
        staleness: the number of iterations by which its policy is older.
        trunk: (B, L, d) the states of the base's trunk if sampling computed them (`TrunkGenerator`).
    """

    iteration: int
    generated: list[Generated]
    staleness: int = 0
    trunk: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _InFlight:
    """The rollout of an iteration that is being sampled."""

    iteration: int
    result: Callable[[], list[Generated]]


class RolloutSource:
    """The responses of each iteration."""

    def __init__(
        self,
        generator: Generator,
        prompt_ids: Sequence[tuple[int, ...]],
        settings: PPOSettings,
        policy: Policy,
        *,
        seed: int,
        ahead: bool,
        with_trunk: bool = False,
    ) -> None:
        """``policy`` is what ``generator`` samples from; ``with_trunk``: by adapters on the base that trains.

        Raises:
            ValueError: ``ahead`` is set, and the generator cannot sample during the updates.
        """
        if ahead and not isinstance(generator, AheadGenerator):
            raise ValueError("sampling ahead needs a generator that samples during the updates, as servers do")
        self._generator, self._policy, self._is_ahead = generator, policy, ahead
        self._with_trunk = with_trunk
        self._prompt_ids, self._settings, self._seed = prompt_ids, settings, seed
        self._taken: TakenRollout | None = None
        self._in_flight: _InFlight | None = None
        self._sampler: dict[str, Tensor] = {}

    def prompts(self, iteration: int) -> list[int]:
        """The prompt number of each episode."""
        return prompts_of(len(self._prompt_ids), self._settings, seed=self._seed, iteration=iteration)

    def sampled(self, iteration: int, chosen: Sequence[int]) -> TakenRollout:
        """The responses of the current policy to the prompts with these numbers."""
        requests = requests_of(self._prompt_ids, chosen, seed=self._seed, iteration=iteration)
        generator, settings = self._generator, self._settings
        temperature, limit = settings.temperature, settings.max_response_tokens
        if self._with_trunk and isinstance(generator, TrunkGenerator):
            found, trunk = generator.generate_with_trunk(requests, temperature=temperature, max_response_tokens=limit)
            return TakenRollout(iteration, found, trunk=trunk)
        return TakenRollout(iteration, generator.generate(requests, temperature=temperature, max_response_tokens=limit))

    def take(self, iteration: int, state: TrainingState[PPOState]) -> TakenRollout:
        """The rollout of an iteration; sampled ahead, the next one is begun.

        An iteration that starts again (in smaller passes) gets the same rollout.
        """
        if not self._is_ahead:
            self._forget(state)  # of a run that was branched from one that sampled ahead
            return self.sampled(iteration, self.prompts(iteration))
        if self._taken is None or self._taken.iteration != iteration:
            self._taken = self._next(iteration, state)
        self._begin(iteration + 1, state)
        return self._taken

    def discard_if_reverted(self, state: TrainingState[PPOState]) -> None:
        """After a rollback: discard what the policy before it samples."""
        if all(state.untrained.get(name) is value for name, value in self._sampler.items()):
            return
        self._forget(state)
        self._sampler = {}
        if self._in_flight is not None:
            in_flight, self._in_flight = self._in_flight, None
            in_flight.result()  # servers must have answered it before they load another adapter
            _log.warning(
                "the rollout of iteration %d, sampled ahead by the policy before the rollback, is discarded",
                in_flight.iteration + 1,
            )

    def _next(self, iteration: int, state: TrainingState[PPOState]) -> TakenRollout:
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            found = in_flight.result()
            if in_flight.iteration == iteration:
                return TakenRollout(iteration, found, staleness=1)
        older = {name.removeprefix(_PREFIX): value for name, value in state.untrained.items() if _is_ours(name)}
        if not older:
            return self.sampled(iteration, self.prompts(iteration))
        with _acting(self._policy, older):
            return replace(self.sampled(iteration, self.prompts(iteration)), staleness=1)

    def _begin(self, iteration: int, state: TrainingState[PPOState]) -> None:
        """Note the policy that samples ``iteration``, and begin unless that was done or no iteration follows."""
        if self._in_flight is None:
            now = {f"{_PREFIX}{name}": value.detach().clone() for name, value in self._policy.parameters().items()}
            self._sampler = now
            if iteration < self._settings.iterations:
                assert isinstance(self._generator, AheadGenerator)  # noqa: S101 - required at the start
                chosen = self.prompts(iteration)
                requests = requests_of(self._prompt_ids, chosen, seed=self._seed, iteration=iteration)
                temperature, limit = self._settings.temperature, self._settings.max_response_tokens
                result = self._generator.begin(requests, temperature=temperature, max_response_tokens=limit)
                self._in_flight = _InFlight(iteration, result)
        state.untrained = {**_others(state.untrained), **self._sampler}

    def _forget(self, state: TrainingState[PPOState]) -> None:
        if any(map(_is_ours, state.untrained)):
            state.untrained = _others(state.untrained)


def _is_ours(name: str) -> bool:
    return name.startswith(_PREFIX)


def _others(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not _is_ours(name)}


@contextmanager
def _acting(policy: Policy, older: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside this block the policy has older weights."""
    current = {name: value.detach().clone() for name, value in policy.parameters().items()}
    policy.load(older)
    try:
        yield
    finally:
        policy.load(current)
