"""What verbs call that needs torch, imported when it is called: after arguments and settings have been read.

The one file whose functions import modules of Triphase (`tests/test_layers.py`): so a mistake in the settings is told
at once, and the command line starts without torch.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triphase.datacheck.opening import place_without_torch
from triphase.records.types import Prompt, Response
from triphase.runs.choice import Checkpoint
from triphase.runs.comparison_request import ComparisonRequest
from triphase.settings.schema import RunSettings
from triphase.store import Store
from triphase.training.distributed.environment import Place

if TYPE_CHECKING:
    from triphase.objectives.worked_step import WorkedStep
    from triphase.planning.machine import Machine
    from triphase.planning.machine_plan import MachinePlan
    from triphase.planning.plan import Plan
    from triphase.reports.comparison import ComparisonFindings
    from triphase.runs.conversation import Conversation
    from triphase.runs.file_scores import FileScores
    from triphase.runs.merging import What
    from triphase.runs.verification import Verification


def perform(
    settings: RunSettings,
    steps: Sequence[str],
    begun: Callable[[Path], None],
    *,
    examined: tuple[str, ...] = (),
    arm: str | None = None,
    checkpoint: Checkpoint = None,
    place: Place | None = None,
) -> None:
    """See `runs.performing`."""
    from triphase.runs.performing import perform as defined

    defined(settings, steps, begun, examined=examined, arm=arm, checkpoint=checkpoint, place=place)


def verify_run(path: Path) -> "list[Verification]":
    """See `runs.verification`."""
    from triphase.runs.verification import verify_run as defined

    return defined(path)


def differences(path: Path) -> list[str]:
    """See `runs.verification`."""
    from triphase.runs.verification import differences as defined

    return defined(path)


def plan_for(settings: RunSettings, machine: "Machine") -> "MachinePlan":
    """`triphase.planning.machine_plan.plan_for`."""
    from triphase.planning.machine_plan import plan_for as defined

    return defined(settings, machine)


def make_plan(settings: RunSettings) -> "Plan":
    """See `planning.plan`."""
    from triphase.planning.plan import make_plan as defined

    return defined(settings)


def abilities() -> dict[str, Any]:
    """See `planning.abilities`; nothing without torch."""
    if importlib.util.find_spec("torch") is None:
        return {}
    from triphase.planning.abilities import abilities as defined

    return defined()


def check_model(settings: RunSettings) -> None:
    """See `datacheck.model_check`; without the libraries of `triphase[train]` only the files are looked at."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        place_without_torch(settings.model)
        return
    from triphase.datacheck.model_check import check_model as defined

    defined(settings)


def require_standing(settings: RunSettings) -> list[str]:
    """See `runs.standing`; without the libraries of `triphase[train]` nothing is looked at."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return []
    from triphase.runs.standing import require_standing as defined

    return defined(settings)


def conversation(
    model: str,
    *,
    checkpoint: int | None,
    policy: str | None,
    max_response_tokens: int,
    temperature: float,
    system: str | None,
) -> "Conversation":
    """See `runs.conversation`."""
    from triphase.runs.conversation import Talk
    from triphase.runs.conversation import conversation_with as defined

    return defined(model, checkpoint, policy, Talk(max_response_tokens, temperature, system))


def merge_policy(run: Path, to: Path, checkpoint: int | None, what: "What") -> None:
    """See `runs.merging`."""
    from triphase.runs.merging import merge_policy as defined

    defined(run, to, checkpoint, what=what)


def copy_adapter(run: Path, to: Path, what: "What") -> None:
    """See `runs.merging`."""
    from triphase.runs.merging import copy_adapter as defined

    defined(run, to, what=what)


def worked_step(
    *,
    reward: float,
    value: float,
    next_value: float,
    discount: float,
    probability_old: float,
    probability_new: float,
    clip_range: float,
) -> "WorkedStep":
    """See `objectives.worked_step`."""
    from triphase.objectives.worked_step import worked_step as defined

    return defined(
        reward=reward,
        value=value,
        next_value=next_value,
        discount=discount,
        probability_old=probability_old,
        probability_new=probability_new,
        clip_range=clip_range,
    )


def sample_into(
    store: Store,
    model: str,
    prompts: Sequence[Prompt],
    *,
    called: str,
    count: int,
    temperature: float,
    max_response_tokens: int,
    seed: int,
) -> None:
    """See `runs.store_samples`."""
    from triphase.runs.store_samples import sample_into as defined

    defined(
        store,
        model,
        prompts,
        called=called,
        count=count,
        temperature=temperature,
        max_response_tokens=max_response_tokens,
        seed=seed,
    )


def scores_by(path: Path, given: Sequence[tuple[Prompt, Response]]) -> dict[str, float]:
    """See `runs.store_scores`."""
    from triphase.runs.store_scores import scores_by as defined

    return defined(path, given)


def score_file(path: Path, file: str, arm: str | None) -> "tuple[FileScores, Iterator[dict[str, Any]]]":
    """See `runs.file_scores`."""
    from triphase.runs.file_scores import FileScores, score_rows

    found = FileScores()
    return found, score_rows(path, file, arm, found)


def compare(wanted: ComparisonRequest) -> "tuple[Path, ComparisonFindings]":
    """See `runs.comparing`; returns the directory too."""
    from triphase.runs.comparing import compare_named as defined

    return defined(wanted)


def sample_best_of(runs: Sequence[Path], samples: int) -> list[str]:
    """See `runs.best_of`."""
    from triphase.monitoring.progress import progress_for
    from triphase.runs.best_of import sample_best_of as defined

    return defined(runs, samples, progress_for())
