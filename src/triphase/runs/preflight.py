"""Checks of everything that the rest of a run depends on, before its first step."""

import logging

from triphase.datacheck.agenda import todo
from triphase.datacheck.demands import demands, holdings_of, require_settings
from triphase.errors import DataError
from triphase.monitoring.log import NOTE
from triphase.runs.reused_artifacts import take_artifacts
from triphase.runs.session import Run

_log = logging.getLogger(__name__)


def examine_run(run: Run, steps: tuple[str, ...] | None = None) -> None:
    """Check everything that the rest of the run depends on, before its first step; by default all steps to do.

    Raises:
        DataError: a record cannot be used, or a step has no data.
        TriphaseError: a setting, a server or the model cannot be used.
    """
    settings, data = run.settings, run.data
    take_artifacts(run)
    wanted = todo(settings)
    pending = tuple(step for step in (wanted if steps is None else steps) if not run.is_done(step))
    for line in require_settings(settings, pending, run.scorer_object):
        _log.warning("%s", line, extra=NOTE)
    # Records of steps that were not requested are read too: their errors are known before hours have passed.
    later = [step for step in wanted if not run.is_done(step)]
    if "sft" in later or ("ppo" in later and settings.mixes_demonstrations):
        data.demonstrations()
    if later:
        data.prompts()
    if "reward" in later:
        data.comparisons()
    if pending:
        holdings = holdings_of(settings, data, pending, rankings=run.count_rankings(needed="reward" in pending))
        for problem in demands(settings, pending, holdings):
            raise DataError(problem)
