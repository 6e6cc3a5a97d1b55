"""Many responses of the SFT policies of a study's runs, with score and gold: best of n, without training."""

from collections.abc import Sequence
from pathlib import Path

from triphase.errors import RunError
from triphase.monitoring.progress import Progress
from triphase.records.files import make_directory, write_json_lines
from triphase.records.paths import refuse_links
from triphase.reports.study import BEST_OF_N
from triphase.runs.comparison_responses import Asking, spoken_by
from triphase.runs.comparison_sums import watched
from triphase.runs.criteria import GOLD, REWARDS, criteria_of
from triphase.runs.judging import scores_by
from triphase.runs.opening import open_run
from triphase.runs.sides import side_of

_FOLDER = "best-of-n"


def sample_best_of(runs: Sequence[Path], samples: int, progress: Progress) -> list[str]:
    """Write ``best-of-n.jsonl`` into each run, with ``samples`` responses to each prompt; existing ones are kept.

    Returns what is unknown, one line each.
    """
    notes = []
    for path in runs:
        run = open_run(path)
        if run.gold is None:
            notes.append(f"{path.name}: no gold score is known, so best of n is judged by the score that selects")
        side = side_of(f"{path}/sft")
        asking = Asking(run.settings.ppo.temperature, run.settings.ppo.max_response_tokens, samples, run.settings.seed)
        prompts = run.prompts("heldout")[: run.settings.evaluation.max_prompts]
        refuse_links(path)
        folder = make_directory(path / _FOLDER)
        found: dict[str, Sequence[float | None]] = {}
        with watched(folder) as edited:
            spoken = spoken_by([side], prompts, asking, folder, progress)
            for name in (REWARDS,) if run.gold is None else (REWARDS, GOLD):
                (criterion,) = criteria_of([name], [side])
                found[name] = scores_by(criterion, spoken, folder, progress)
        notes += edited
        golds = found.get(GOLD, [None] * len(spoken))
        rows = [
            {"prompt_id": each.prompt.id, "sample": each.row["sample"], "score": score, "gold": gold}
            for each, score, gold in zip(spoken, found[REWARDS], golds, strict=True)
        ]
        if not rows:
            raise RunError(f"{path}: there are no held-out prompts for best of n")
        write_json_lines(path / BEST_OF_N, rows)
    return notes
