"""Which of two engines samples a run's rollouts faster: both sample the same prompts, for about ten seconds each.

    rate = new tokens / seconds

Two short rollouts come first: what is compiled, captured or loaded for the first one is not counted, and the pace of
the second bounds the responses of the trial, so that one rollout of it takes no longer than the trial should.
"""

import time
from collections.abc import Callable, Sequence

from triphase.phases.episodes import prompts_of, requests_of
from triphase.rollouts.types import Generator, Request
from triphase.settings.ppo import PPOSettings

SECONDS = 10.0
"""Time of the trial of one engine."""
_SHORT = 8
"""Maximum tokens of a response in the short rollouts."""


class EngineTrial:
    """The rollouts that every engine samples in a trial: those of PPO's first iterations, which are sampled again."""

    def __init__(
        self,
        prompt_ids: Sequence[tuple[int, ...]],
        settings: PPOSettings,
        *,
        seed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prompt_ids, self._settings, self._seed, self._clock = prompt_ids, settings, seed, clock

    def seconds_per_token(self, generator: Generator) -> float:
        """The time in which each response grows by a token, reading the prompts included."""
        for _ in range(2):
            begin = self._clock()
            found = self._sampled(generator, 0, min(_SHORT, self._settings.max_response_tokens))
        return (self._clock() - begin) / max(len(each) for each in found)

    def limit(self, seconds_per_token: float) -> int:
        """Maximum tokens of a response, so that one rollout does not take longer than the trial."""
        fitting = int(SECONDS / max(seconds_per_token, 1e-9))
        return min(self._settings.max_response_tokens, max(_SHORT, fitting))

    def rate(self, generator: Generator, limit: int, goes_on: Callable[[float], bool]) -> float:
        """New tokens per second in rollout after rollout, until ``goes_on`` is False for the seconds so far."""
        begin, tokens, iteration = self._clock(), 0, 0
        while True:
            iteration += 1
            tokens += sum(map(len, self._sampled(generator, iteration, limit)))
            seconds = self._clock() - begin
            if not goes_on(seconds):
                return tokens / max(seconds, 1e-9)

    def _sampled(self, generator: Generator, iteration: int, limit: int) -> list[tuple[int, ...]]:
        requests = self._requests(iteration)
        found = generator.generate(requests, temperature=self._settings.temperature, max_response_tokens=limit)
        return [each.ids for each in found]

    def _requests(self, iteration: int) -> list[Request]:
        chosen = prompts_of(len(self._prompt_ids), self._settings, seed=self._seed, iteration=iteration)
        return requests_of(self._prompt_ids, chosen, seed=self._seed, iteration=iteration)
