"""The trial of two engines, by hand: what is counted, what is not, and what both are asked."""

from collections.abc import Sequence

import pytest

from triphase.phases.engine_trial import SECONDS, EngineTrial
from triphase.phases.ppo_state import PPOState
from triphase.rollouts.engines import EngineChoice, choice_note, choice_of
from triphase.rollouts.types import Generated, Request
from triphase.settings.ppo import PPOSettings

IDS = [(1, number) for number in range(6)]


class Engine:
    """Needs ``first`` seconds for its first rollout, and ``step`` for each token of the longest response."""

    def __init__(self, step: float, first: float = 0.0) -> None:
        self.step, self.first, self.now = step, first, 0.0
        self.asked: list[tuple[list[Request], int]] = []

    def generate(self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        assert temperature == 0.7
        self.asked.append((list(requests), max_response_tokens))
        self.now += self.step * max_response_tokens + self.first
        self.first = 0.0
        # One in two responses ends at its first token.
        return [Generated((5,) * (1 if number % 2 else max_response_tokens), True) for number, _ in enumerate(requests)]


def trial(engine: Engine, tokens: int = 20) -> EngineTrial:
    settings = PPOSettings(batch_size=4, minibatch_size=4, max_response_tokens=tokens, temperature=0.7)
    return EngineTrial(IDS, settings, seed=3, clock=lambda: engine.now)


def test_the_rate_is_of_whole_rollouts_until_the_time_is_up() -> None:
    engine = Engine(step=0.15)
    # Rollouts of 3 s with 2·20 + 2·1 tokens: the fourth passes ten seconds.
    rate = trial(engine).rate(engine, 20, lambda seconds: seconds < SECONDS)
    assert rate == pytest.approx(4 * 42 / 12.0) and len(engine.asked) == 4
    prompts = [[request.prompt for request in requests] for requests, _ in engine.asked]
    assert prompts[0] != prompts[1]  # no cache of prompts helps


def test_what_comes_once_is_not_counted_and_a_slow_engine_gets_shorter_responses() -> None:
    engine = Engine(step=0.5, first=100.0)
    made = trial(engine, tokens=64)
    assert made.seconds_per_token(engine) == pytest.approx(0.5)
    assert [limit for _, limit in engine.asked] == [8, 8]
    assert made.limit(0.5) == 20 and made.limit(1e-6) == 64 and made.limit(0.0) == 64
    assert made.limit(60.0) == 8  # at least as long as the short ones
    short = {request.prompt for requests, _ in engine.asked for request in requests}
    engine.asked.clear()
    assert made.rate(engine, made.limit(0.5), lambda seconds: seconds < SECONDS) == pytest.approx(42 / 10.0)
    assert len(engine.asked) == 1
    # The first rollout that counts has other prompts than those before it: 4 of 6, then the other 2 and 2 again.
    assert len(short - {request.prompt for request in engine.asked[0][0]}) == 2


def test_both_engines_are_asked_the_same() -> None:
    fast, slow = Engine(step=0.01), Engine(step=0.3)
    for engine in (fast, slow):
        trial(engine).rate(engine, 20, lambda seconds: seconds < SECONDS)
    assert len(fast.asked) > 2 * len(slow.asked) > 2
    assert fast.asked[: len(slow.asked)] == slow.asked
    seeds = [request.seed for requests, _ in fast.asked for request in requests]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("rates", "engine", "line"),
    [
        ({"local": 100.0, "vllm": 250.5}, "vllm", "100 new tokens per second in this process, 250.5 by servers; the"),
        ({"local": 100.0, "vllm": 99.0}, "local", "; this process samples this run"),
        ({"local": 7.0, "vllm": 7.0}, "local", "this process samples"),
    ],
)
def test_the_faster_one_is_chosen_and_both_rates_are_told(rates: dict[str, float], engine: str, line: str) -> None:
    choice = choice_of(rates)
    assert choice == EngineChoice(engine, rates) and line in choice_note(choice)
    # A checkpoint has it, and only where there was a trial.
    state = PPOState(engine=choice)
    assert PPOState.from_json(state.as_json()) == state and "engine" not in PPOState().as_json()
