"""What samples PPO's rollouts: the engine of the settings or, with `rollouts.engine: auto`, the faster of two.

The trial is made before the first iteration. Its result is stored in every checkpoint, so that a run is sampled by one
engine from its start to its end, and variants by that of the main run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from triphase.datacheck.served_base import require_startable
from triphase.errors import TriphaseError
from triphase.models.policies import Policy
from triphase.phases.engine_trial import SECONDS, EngineTrial
from triphase.phases.rank_sharing import LedGenerator
from triphase.rollouts.engines import LOCAL, SERVERS, EngineChoice, choice_note, choice_of
from triphase.rollouts.types import Generator
from triphase.runs.generators import generator_of, shared_generator
from triphase.runs.kept_engine import kept_choice
from triphase.runs.session import Run


@contextmanager
def chosen_generator(
    run: Run, policy: Policy, phase: str, batch_size: int, serving: Path, trial: EngineTrial
) -> Iterator[tuple[Generator, EngineChoice | None]]:
    """The generator of PPO's rollouts, and the choice if the settings leave it to a trial."""
    rollouts, strategy = run.settings.rollouts, run.strategy
    choice = None
    if rollouts.tries_both:
        told = strategy.from_lead(lambda: _plain(kept_choice(run.path, phase)))
        if told is None:
            with _tried(run, policy, batch_size, serving, trial) as found:
                yield found
            return
        choice = EngineChoice(**told)
        if strategy.is_lead:
            run.say(choice_note(choice, is_kept=True))
    elif rollouts.engine == "auto" and strategy.is_lead:
        alone = (
            "only servers can sample ahead (rollouts.ahead)" if rollouts.ahead else "no servers or addresses are set"
        )
        run.say(f"rollouts.engine auto: without a trial, since {alone}")
    by_servers = rollouts.by_servers if choice is None else choice.by_servers
    with shared_generator(run, policy, batch_size, serving, by_servers=by_servers) as generator:
        yield generator, choice


@contextmanager
def _tried(
    run: Run, policy: Policy, batch_size: int, serving: Path, trial: EngineTrial
) -> Iterator[tuple[Generator, EngineChoice]]:
    """Both engines in a trial; servers that lose it are ended."""
    strategy = run.strategy
    with (
        shared_generator(run, policy, batch_size, serving, by_servers=False) as local,
        ExitStack() as opened,
    ):
        servers: list[Generator] = []

        def open_servers() -> float:
            if run.settings.rollouts.servers:
                require_startable(run.settings)
            servers.append(opened.enter_context(generator_of(run, policy, batch_size, serving, by_servers=True)))
            return trial.seconds_per_token(servers[0])

        def goes_on(seconds: float) -> bool:
            run.raise_if_stop_requested()
            return seconds < SECONDS

        choice = None
        pace, reason = strategy.from_lead(lambda: _or_reason(open_servers))
        if pace is not None:
            own = trial.seconds_per_token(local)
            limit = strategy.from_lead(lambda: trial.limit(max(own, pace)))
            here = trial.rate(local, limit, lambda seconds: strategy.from_lead(lambda: goes_on(seconds)))
            there, reason = strategy.from_lead(lambda: _or_reason(lambda: trial.rate(servers[0], limit, goes_on)))
            if there is not None:
                choice = choice_of({LOCAL: strategy.from_lead(lambda: here), SERVERS: there})
        choice = choice or EngineChoice(LOCAL, reason=reason)
        if strategy.is_lead:
            run.say(choice_note(choice))
        if not choice.by_servers:
            opened.close()
            yield local, choice
        elif strategy.world == 1:
            yield servers[0], choice
        else:
            yield LedGenerator(servers[0] if servers else None, strategy), choice


def _or_reason(measured: Callable[[], float]) -> tuple[float | None, str]:
    """A number, or why there is none: servers that cannot sample do not end a run that can sample without them."""
    try:
        return measured(), ""
    except TriphaseError as error:
        return None, str(error)


def _plain(choice: EngineChoice | None) -> dict[str, Any] | None:
    return None if choice is None else asdict(choice)
