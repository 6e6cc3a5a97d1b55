"""Ranks other than 0: they wait for the phases that rank 0 shares out, and do their part of each.

They write only their log, `ranks/N.log`; what rank 0 does alone (sampling for people, evaluation, the report) takes as
long as it takes.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from triphase.errors import TriphaseError
from triphase.models.critics import CRITIC
from triphase.monitoring.log import without_secrets
from triphase.monitoring.memory import memory_errors
from triphase.monitoring.progress import SilentProgress
from triphase.runs.directory import RunDirectory
from triphase.runs.loop_options import kept
from triphase.runs.phase_setup import ppo_phase_of, sft_phase, whole_weights
from triphase.runs.ranks import show_directory
from triphase.runs.reward_training import follow_reward
from triphase.runs.session import Run
from triphase.settings.phase_names import ppo_phase
from triphase.settings.schema import RunSettings
from triphase.training.distributed.environment import RANKS
from triphase.training.distributed.types import LeadEnded, Strategy
from triphase.training.loop import run_loop
from triphase.training.stopping import Stopped, StopRequest

_log = logging.getLogger(__name__)


def follow(settings: RunSettings, strategy: Strategy) -> NoReturn:
    """Take part in a run as a rank other than 0, until rank 0 has no more work.

    Raises:
        LeadEnded: there is none.
        TriphaseError: this rank cannot continue.
    """
    directory = RunDirectory(settings)
    show_directory(directory.path, strategy)
    phases: Mapping[str, Callable[[Run, str | None], None]] = {"sft": _sft, "reward": _reward, "ppo": _ppo}
    with _logged(directory.path / RANKS / f"{strategy.rank}.log"), StopRequest().listening() as stop:
        run = Run(settings, directory, SilentProgress(), stop, strategy=strategy)
        while True:
            phase, variant = run.next_shared_phase()
            _log.info("%s starts", phase if variant is None else f"{phase} ({variant})")
            with memory_errors(phase):
                phases[phase](run, variant)
            _log.info("%s ends", phase)


def _sft(run: Run, variant: str | None) -> None:
    phase, _ = sft_phase(run)
    with kept(run, "sft", "", phase.total_steps, shown=()) as options:
        run_loop(phase, options)
    if run.settings.sft.method == "full":
        whole_weights(run, phase.shared)
        run.forget_model()
    run.data.forget_demonstrations()


def _reward(run: Run, variant: str | None) -> None:
    follow_reward(run)


def _ppo(run: Run, variant: str | None) -> None:
    with (
        ppo_phase_of(run, variant) as phase,
        kept(run, ppo_phase(variant), "", phase.total_steps, shown=(), guard=phase.guard) as options,
    ):
        run_loop(phase, options)
    if run.settings.ppo_of(variant).method == "full":
        whole_weights(run, phase.policy.model)
    run.model().adapters.remove(CRITIC)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """All output of this process goes to a file, including what libraries print."""
    kept = [os.dup(number) for number in (1, 2)]
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("triphase")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        _log.info("process %d joined", os.getpid())
        yield
    except (LeadEnded, Stopped):
        _log.info("rank 0 has no more work, or was asked to stop")
        raise
    except TriphaseError as error:
        _log.error("%s", error)
        raise
    except Exception as error:
        _log.error("%s: %s", type(error).__name__, error)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)
