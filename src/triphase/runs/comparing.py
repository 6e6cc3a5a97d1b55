"""Compares policies: each responds to the same prompts, and the responses are judged. Completed work is kept.

The directory of a comparison contains `asked.json`, `responses.jsonl`, `scores.jsonl`, a judge's verdicts, their
checksums, `comparison.json` and `comparison.html`; if people judge, also their store.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triphase.errors import DataError, RunError, TriphaseError
from triphase.monitoring.progress import Progress, progress_for
from triphase.records.files import make_directory, write_json
from triphase.records.prompt_columns import with_columns, with_same_columns
from triphase.records.reading import stream_prompts
from triphase.records.types import Prompt
from triphase.reports.comparison import (
    Compared,
    ComparisonFindings,
    Judgment,
    by_judgment,
    by_scores,
    plain_of,
    side_findings,
)
from triphase.reports.comparison_page import write_comparison_page
from triphase.reports.people_wins import keep_people_wins
from triphase.runs.comparison_request import ComparisonRequest
from triphase.runs.comparison_responses import Asking, Spoken, spoken_by
from triphase.runs.comparison_sums import watched
from triphase.runs.criteria import Criterion, criteria_of
from triphase.runs.human_judges import judged_by_people
from triphase.runs.judging import scores_by, scores_of, verdicts_by
from triphase.runs.locking import locked
from triphase.runs.opening import open_run
from triphase.runs.session import Run
from triphase.runs.sides import ComparedPolicy, reference_digest, sides_of
from triphase.settings.data import SourceSettings
from triphase.settings.loading import load_settings

ASKED, FINDINGS = "asked.json", "comparison.json"
_TEMPERATURE, _MAX_TOKENS = 0.7, 256
"""Used if no side is of a run."""
_LONGEST_NAME = 100


def compare_named(wanted: ComparisonRequest) -> tuple[Path, ComparisonFindings]:
    """`compare` for the command line.

    Raises:
        TriphaseError: a side, a criterion or the prompts cannot be used.
    """
    sides = sides_of(wanted.sides)
    run = next((load_settings(side.run) for side in sides if side.run is not None), None)
    asking = Asking(
        wanted.temperature or (run.ppo.temperature if run else _TEMPERATURE),
        wanted.max_tokens or (run.ppo.max_response_tokens if run else _MAX_TOKENS),
        wanted.samples or (run.evaluation.samples_per_prompt if run else 1),
        wanted.seed,
    )
    criteria = criteria_of(wanted.by, sides)
    columns = any(each.takes_columns for each in criteria)
    chosen, source = prompts_for(sides, wanted.prompts, wanted.max_prompts, columns=columns)
    beside = next((side.run.parent for side in sides if side.run is not None), Path())
    directory = wanted.to or beside / f"compare-{'-vs-'.join(map(_word, sides))}"[:_LONGEST_NAME]
    return directory, compare(sides, criteria, chosen, source, asking, directory, progress_for())


def prompts_for(
    sides: Sequence[ComparedPolicy], file: str | None, most: int | None, *, columns: bool = False
) -> tuple[list[Prompt], str]:
    """The prompts of a comparison, and their origin: a file, or the held-out ones of the first run.

    ``columns``: whether a scorer needs those of the file's records.

    Raises:
        RunError: there is no run among the sides, and no file.
        DataError: there is no prompt.
    """
    if file is not None:
        items = stream_prompts(SourceSettings(path=file), Path(), 0.0)
        found = [
            with_columns(item.record, item.row) if columns and item.row is not None else item.record for item in items
        ]
        if not found:
            raise DataError(f"{file}: contains no prompts")
        return with_same_columns({prompt.id: prompt for prompt in found}.values())[:most], file
    runs = [side.run for side in sides if side.run is not None]
    if not runs:
        raise RunError("no side is a run with held-out prompts; give --prompts FILE")
    run = open_run(runs[0])
    held = with_same_columns(run.prompts("heldout"))
    return held[: most or run.settings.evaluation.max_prompts], f"held out in {runs[0].name}"


def compare(
    sides: Sequence[ComparedPolicy],
    criteria: Sequence[Criterion],
    prompts: Sequence[Prompt],
    source: str,
    asking: Asking,
    directory: Path,
    progress: Progress,
) -> ComparisonFindings:
    """Sample, judge, and write `comparison.json` and `comparison.html` into ``directory``.

    Raises:
        RunError: the directory contains a comparison with other sampling settings, or something else.
    """
    asked = _begun(directory, asking)
    with (
        locked(directory, "another process is working on this comparison: wait for it, or stop it"),
        watched(directory) as edited,
    ):
        spoken, names = spoken_by(sides, prompts, asking, directory, progress), [side.name for side in sides]
        scores = {
            each.name: scores_by(each, spoken, directory, progress) for each in criteria if each.scores is not None
        }
        responses = [_compared(each, scores_of(scores, place)) for place, each in enumerate(spoken)]
        found = [
            by_scores(responses, names, each.name, each.about, seed=asking.seed)
            if each.scores is not None
            else by_judgment(
                _judgment(each, spoken, sides, directory, asking.seed), names, each.name, each.about, seed=asking.seed
            )
            for each in criteria
        ]
        findings = ComparisonFindings(
            [side_findings(responses, side.name, _about(side), seed=asking.seed) for side in sides],
            found,
            [*edited, *_notes_on(sides, prompts)],
            {**asked, "samples": asking.samples, "prompts": len(prompts), "prompts_from": source},
        )
        write_json(directory / FINDINGS, plain_of(findings))
        write_comparison_page(directory, findings, responses)
        keep_people_wins([side.run for side in sides if side.run is not None], directory, findings)
    return findings


def _judgment(
    criterion: Criterion, spoken: Sequence[Spoken], sides: Sequence[ComparedPolicy], directory: Path, seed: int
) -> Judgment:
    if criterion.people:
        return judged_by_people(spoken, sides, directory, seed=seed)
    return verdicts_by(criterion, spoken, sides, directory)


def _begun(directory: Path, asking: Asking) -> dict[str, Any]:
    """Store how policies are sampled; more samples and prompts may be requested later."""
    path = directory / ASKED
    asked = {
        "temperature": asking.temperature,
        "max_response_tokens": asking.max_response_tokens,
        "seed": asking.seed,
    }
    make_directory(directory)
    if not path.is_file():
        if any(directory.iterdir()):
            raise RunError(f"{directory}: is not empty and not a comparison; choose another directory (--to)")
        write_json(path, asked)
        return asked
    try:
        kept = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); remove {directory}, and compare again") from None
    if kept != asked:
        changed = ", ".join(f"{key} {kept.get(key)}" for key in asked if kept.get(key) != asked[key])
        raise RunError(
            f"{directory}: was started with {changed}; use the same arguments, or choose another directory (--to)"
        )
    return asked


def _notes_on(sides: Sequence[ComparedPolicy], prompts: Sequence[Prompt]) -> list[str]:
    """Caveats of the comparison: prompts that a side was trained on, references that differ."""
    notes = []
    runs = {side.run: open_run(side.run) for side in sides if side.run is not None}
    for path, run in runs.items():
        seen = _trained_on(run)
        if seen is None:
            notes.append(
                f"{path.name}: its data cannot be read, so it is unknown whether it was trained on these prompts"
            )
        elif count := sum(prompt.id in seen for prompt in prompts):
            notes.append(f"{path.name} was trained on {count} of these {len(prompts)} prompts")
    if any(side.run is None for side in sides):
        notes.append("for a model that does not belong to a run, the training prompts are unknown")
    if len({reference_digest(path, run.settings) for path, run in runs.items()}) > 1:
        notes.append(
            "the runs have different reference policies: each KL is relative to the side's own and not comparable"
        )
    return notes


def _trained_on(run: Run) -> set[str] | None:
    """The ids of the prompts that a run trains on; None if its data cannot be read any more."""
    try:
        found = {prompt.id for prompt in run.data.prompts() if prompt.split == "train"}
        demonstrations = [each for source in run.data.demonstrations() for each in source]
    except TriphaseError:
        return None
    return found | {each.prompt.id for each in demonstrations if each.prompt.split == "train"}


def _compared(spoken: Spoken, scores: dict[str, float | None]) -> Compared:
    row, (prompt, response, finished) = spoken.row, spoken.said
    return Compared(
        spoken.side.name,
        prompt.id,
        prompt.text,
        int(row["sample"]),
        response,
        finished,
        int(row["tokens"]),
        row["reference_kl"],
        scores,
    )


def _word(side: ComparedPolicy) -> str:
    """A side as part of a directory's name."""
    text = side.name if side.run is None else f"{side.run.name}-{side.policy}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")


def _about(side: ComparedPolicy) -> str:
    return "a model" if side.run is None else f"{side.policy} of {side.run.name}"
