"""Steps of a run by their names, in a run that is prepared for them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from triphase.monitoring.progress import Progress
from triphase.runs import pipeline
from triphase.runs.best_checkpoint import Checkpoint, step_of
from triphase.runs.checkpoint_selection import choose_best
from triphase.runs.learning_curve import measure_curve
from triphase.runs.preflight import examine_run
from triphase.runs.ranks import Ranks, ranks_of
from triphase.runs.reward_training import run_reward
from triphase.runs.rounds import further_rounds, round_note
from triphase.runs.session import Run, ScorerObject, prepare
from triphase.runs.worker_ranks import follow
from triphase.settings.schema import RunSettings
from triphase.training.distributed.environment import Place


def perform(
    settings: RunSettings,
    steps: Sequence[str],
    begun: Callable[[Path], None],
    *,
    examined: tuple[str, ...] = (),
    variant: str | None = None,
    checkpoint: Checkpoint = None,
    progress: Progress | None = None,
    scorer_object: ScorerObject = None,
    place: Place | None = None,
) -> None:
    """Lock the run directory and do the steps; ``begun`` is called with the directory before the first of them.

    Args:
        steps: of all, sft, sampling, labeling, reward, learning curve, ppo, ppo and variants, best, evaluation, report.
        examined: steps for which the data is checked first; "all" does that itself.
        variant: the variant whose PPO is run.
        checkpoint: an iteration of PPO that is evaluated too; `best` is the selected one.
        progress: the display; bars or lines on standard error by default.
        scorer_object: a Python object that scores.
        place: rank and number of processes; a single one by default. Only the first calls ``begun``.
    """
    by_name: Mapping[str, Callable[[Run], object]] = {
        "all": pipeline.run_all,
        "sft": pipeline.run_sft,
        "sampling": pipeline.run_sampling,
        "labeling": pipeline.run_labeling,
        "reward": run_reward,
        "learning curve": measure_curve,
        "ppo": lambda run: pipeline.run_ppo(run, variant),
        "ppo and variants": pipeline.run_every_ppo,
        "best": choose_best,
        "evaluation": lambda run: pipeline.run_evaluation(run, step_of(run.path, checkpoint)),
        "report": pipeline.run_report,
    }
    with ranks_of(settings, place or Place()) as ranks:
        if not ranks.strategy.is_lead:
            follow(settings, ranks.strategy)
        with prepare(settings, progress, scorer_object, ranks) as run:
            begun(run.path)
            if examined:
                examine_run(run, examined)
            for step in steps:
                by_name[step](run)
            dated = run.settings  # prompts of all rounds are rendered with one date
        if "all" in steps and settings.rounds > 1:
            _further_rounds(dated, progress, scorer_object, ranks)
            with prepare(settings, progress, scorer_object, ranks) as run:
                pipeline.run_report(run)


def _further_rounds(
    settings: RunSettings, progress: Progress | None, scorer_object: ScorerObject, ranks: Ranks
) -> None:
    """Each further round as a separate run."""
    for each in further_rounds(settings):
        with prepare(each, progress, scorer_object, ranks) as run:
            pipeline.run_all(run)
            if (line := round_note(run)) is not None:
                run.say(line)
