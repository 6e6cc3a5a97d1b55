"""Functions of commands that need torch, imported on first use: after arguments and settings have been read.

So a mistake in the settings is reported at once, and the command line starts without torch. `deferred.perform` is
`perform` of `runs/execution.py`, with its own types: only a type checker reads the imports below.
"""

import gc
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triphase.datacheck.model_check import check_model as check_model
    from triphase.objectives.worked_step import worked_step as worked_step
    from triphase.planning.machine_plan import plan_for as plan_for
    from triphase.planning.plan import make_plan as make_plan
    from triphase.runs.abilities import abilities as abilities
    from triphase.runs.best_of import sample_best_of as sample_best_of
    from triphase.runs.comparing import compare_named as compare_named
    from triphase.runs.conversation import Talk as Talk
    from triphase.runs.conversation import conversation_with as conversation_with
    from triphase.runs.execution import perform as perform
    from triphase.runs.exporting import copy_adapter as copy_adapter
    from triphase.runs.exporting import merge_policy as merge_policy
    from triphase.runs.file_scores import FileScores as FileScores
    from triphase.runs.file_scores import score_rows as score_rows
    from triphase.runs.resume_checks import require_resumable as require_resumable
    from triphase.runs.store_samples import sample_into as sample_into
    from triphase.runs.store_scores import scores_by as scores_by
    from triphase.runs.verification import differences as differences
    from triphase.runs.verification import verify_run as verify_run

PLACES = {
    "FileScores": "runs.file_scores",
    "Talk": "runs.conversation",
    "abilities": "runs.abilities",
    "check_model": "datacheck.model_check",
    "compare_named": "runs.comparing",
    "conversation_with": "runs.conversation",
    "copy_adapter": "runs.exporting",
    "differences": "runs.verification",
    "make_plan": "planning.plan",
    "merge_policy": "runs.exporting",
    "perform": "runs.execution",
    "plan_for": "planning.machine_plan",
    "require_resumable": "runs.resume_checks",
    "sample_best_of": "runs.best_of",
    "sample_into": "runs.store_samples",
    "score_rows": "runs.file_scores",
    "scores_by": "runs.store_scores",
    "verify_run": "runs.verification",
    "worked_step": "objectives.worked_step",
}
"""The module of each name; `tests/test_layers.py` compares it with the imports above."""


def can_train() -> bool:
    """Whether torch and transformers are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def _imported(place: str) -> ModuleType:
    """A module; on its first import without collections of garbage, of which there is little.

    Libraries stay in memory: going through what they allocate took a sixth of their import, and later 0.25 s between
    two phases.
    """
    if place in sys.modules or not gc.isenabled():
        return importlib.import_module(place)
    gc.disable()
    try:
        return importlib.import_module(place)
    finally:
        gc.freeze()
        gc.enable()


if not TYPE_CHECKING:  # a type checker reads the names above, and knows that there are no others

    def __getattr__(name: str) -> object:
        if name not in PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(_imported(f"triphase.{PLACES[name]}"), name)
