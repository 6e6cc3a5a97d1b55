"""Before PPO: is the reward model better than chance? If not, the run stops until something has changed.

The verdict is written to `reward/verdict.json` with a fingerprint of the rankings that it is based on. Once there are
other rankings, the refused reward model is set aside and the reward phase starts again.
"""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.monitoring.wording import percent
from triphase.records.files import write_json
from triphase.reports.chance_check import ChanceVerdict, chance_verdict
from triphase.reports.contents import read_pairs
from triphase.runs.session import Run
from triphase.settings.phase_names import REWARD, VARIANTS
from triphase.training.artifacts import is_whole
from triphase.training.checkpoint_places import kept_steps

FILE_NAME = "verdict.json"
_log = logging.getLogger(__name__)


class RewardModelRefused(RunError):
    """The reward model is not shown to be better than chance; the same command continues once something changed."""


def require_reward_model(run: Run) -> None:
    """Stop before PPO if there is no reward model, or one that is no better than chance.

    PPO that has started continues. What cannot be judged is reported, and is no reason to stop.

    Raises:
        RunError: the reward phase has not been run.
        RewardModelRefused: held-out comparisons do not show that it is better, and the settings require it.
    """
    final = run.artifact(REWARD)
    if not is_whole(final):
        raise RunError(f"{final} does not exist yet; run `triphase reward` with this configuration first")
    lines = run.part("reward", "heldout.jsonl")
    if not lines.is_file() or _has_begun(run):
        return
    verdict = chance_verdict(read_pairs(lines), seed=run.settings.seed)
    if verdict is None:
        _log.warning(
            "whether the reward model is better than chance cannot be determined: no held-out "
            "prompt has a comparison with "
            "a preferred side; rank held-out prompts (data.heldout_share) to find out"
        )
        return
    if verdict.is_better:
        return
    if verdict.outcome == "too few":
        _log.warning("%s To find out: %s", verdict.finding, verdict.remedy)
        return
    write_json(run.part("reward", FILE_NAME), {**asdict(verdict), "rankings": _rankings(run)})
    if not run.settings.reward.require_better_than_chance:
        _log.warning("%s PPO continues anyway (reward.require_better_than_chance: false)", verdict.finding)
        return
    raise RewardModelRefused(_refusal(run, verdict))


def set_refused_aside(run: Run) -> None:
    """Set the reward model aside if it was refused and the rankings have changed since."""
    refused = _refused(run.part("reward", FILE_NAME))
    if not run.settings.reward.require_better_than_chance or refused is None or _has_begun(run):
        return
    if refused == _rankings(run):
        return
    number = 1
    while (aside := run.part(f"reward-refused-{number}")).exists():
        number += 1
    run.part("reward").rename(aside)
    _log.warning("the rankings have changed: the reward model is trained again; the rejected one is in %s", aside)


def _has_begun(run: Run) -> bool:
    """Whether PPO, or a variant of it, has a checkpoint."""
    return any(
        kept_steps(path) for path in (run.part("ppo", "checkpoints"), *run.path.glob(f"{VARIANTS}/*/checkpoints"))
    )


def _refusal(run: Run, verdict: ChanceVerdict) -> str:
    more = run.settings.labeling.source == "people"
    then = f"then run this command again ({run.path} continues)" if more else "start again under another name (--name)"
    return (
        f"PPO is not started. {verdict.finding} ({verdict.accuracy.prompts} held-out prompts; "
        f'"longer wins": {percent(verdict.longer_wins.value)}.) What to do: {verdict.remedy.rstrip(".")}; {then}. '
        "To continue anyway: reward.require_better_than_chance: false"
    )


def _refused(path: Path) -> str | None:
    """The fingerprint of the rankings that the refused reward model was judged on; None if none was refused.

    A verdict that cannot be read counts as none, with a warning: the reward model is evaluated again.
    """
    if not path.is_file():
        return None
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        return str(found["rankings"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        _log.warning("%s is damaged; the reward model is evaluated again", path)
        return None


def _rankings(run: Run) -> str:
    """The fingerprint of the comparisons in the store."""
    digest = hashlib.sha256()
    with run.store() as store:
        for split in ("train", "heldout"):
            for group in store.ranked_groups(split):
                digest.update(repr((split, group.prompt.id, group.responses, group.pairs)).encode("utf-8", "replace"))
    return digest.hexdigest()
