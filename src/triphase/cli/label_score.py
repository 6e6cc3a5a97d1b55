"""``label score``: scores of reward models for the responses in a store; uncertain ones are ranked first.

The labeling application never imports torch; so the scores are computed here, stored, and read from the store.
"""

import os
import time
from pathlib import Path

from triphase.cli import deferred
from triphase.cli.arguments import require_run
from triphase.cli.label import opened, say, settings_of_store
from triphase.errors import RunError
from triphase.labeling.work import audit, item_plan
from triphase.labeling.work.invitations import OPERATOR
from triphase.monitoring.wording import percent
from triphase.settings.phase_names import REWARD
from triphase.training.artifacts import has_left


def score(run_or_store: str, /, *reward_runs: Path, again: bool = False) -> None:
    """Score responses with reward models; rank uncertain ones first.

    Items that nobody has started are reordered: those on which the models are least certain come first.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        reward_runs: runs whose reward models score; several form an ensemble. By default the run itself.
        again: also score responses that this run has scored before.
    """
    wanted = list(reward_runs) or [Path(run_or_store)]
    if not reward_runs and not os.path.isdir(run_or_store):
        raise RunError(f"{run_or_store}: is not a run; give the runs whose reward models score: label score STORE RUN")
    for path in wanted:
        if not has_left(require_run(path), REWARD):
            raise RunError(f"{path}: has no reward model yet; run `triphase reward` with its configuration first")
    names = [path.resolve().name for path in wanted]
    if len(set(names)) < len(names):
        raise RunError(f"two runs have the same name ({', '.join(names)}), which identifies a scorer; rename one")
    settings, seed = settings_of_store(run_or_store)
    with opened(run_or_store, must_exist=True) as store:
        prompts = {prompt.id: prompt for prompt in store.prompts()}
        responses, known = store.responses(), {} if again else store.scores()
        for path, name in zip(wanted, names, strict=True):
            new = [one for one in responses if name not in known.get(one.id, ())]
            found = deferred.scores_by(path, [(prompts[one.prompt_id], one) for one in new])
            store.add_scores(name, found)
            say(f"{len(found)} responses scored by {name}.")
        item_plan.make_items(store, settings, seed=seed, now=time.time())
        waiting = item_plan.reprioritize(store, settings, seed=seed)
        with store.transaction() as connection:
            audit.note(
                connection, at=time.time(), who=OPERATOR, action="items ordered", subject="store",
                after={"items": waiting, "scorers": names},
            )  # fmt: skip
    say(
        f"{waiting} items that nobody has started are reordered: the least certain first, "
        f"{percent(settings.random_share)} of them at random (labeling.random_share)."
    )
