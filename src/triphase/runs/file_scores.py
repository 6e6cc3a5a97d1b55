"""What the reward of a run thinks of prompts and responses in a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from triphase.errors import DataError, RunError
from triphase.records.columns import answered, compared
from triphase.records.identity import prompt_id, split_of
from triphase.records.lines import Row
from triphase.records.rows import read_rows
from triphase.records.types import Message, Prompt
from triphase.reports.intervals import Interval, mean_over_prompts
from triphase.rewards.registry import kind_of
from triphase.rewards.types import Answer, Scorer
from triphase.runs.opening import open_run
from triphase.runs.scoring import scorer_of
from triphase.runs.session import Run
from triphase.settings.schema import SourceSettings
from triphase.tokens.encoding import Encoded, encode_prompt
from triphase.training.artifacts import REWARD, is_whole

_ROWS = 256
Answered = tuple[Row, tuple[Answer, ...], str | None]
"""A row with its one response, or with the chosen and the rejected one; or with why there are none."""


@dataclass(slots=True)
class FileScores:
    """What was found so far.

    Attributes:
        scores: of rows with one response.
        unscored: rows without a score: they cannot be read, or pass `model.max_length`.
        right: of comparisons by prompt: 1 where the chosen response has the higher score, ½ where both have the same.
    """

    scores: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    unscored: int = 0

    @property
    def accuracy(self) -> Interval | None:
        """The share of comparisons that the scores order as the file does; None where there are none."""
        return mean_over_prompts(self.right)


def score_rows(run_path: Path, file: str, arm: str | None, found: FileScores) -> Iterator[dict[str, Any]]:
    """Each row of a file with its score, or with those of ``chosen`` and ``rejected``; ``found`` is filled on the way.

    A row that cannot be used has no score, and says why under ``problem``.

    Raises:
        RunError: the run has no such variant, or no reward model yet.
        DataError: the file cannot be read.
    """
    run = open_run(run_path)
    if arm is not None and arm not in run.settings.arms:
        known = f"it has {', '.join(run.settings.arms)}" if run.settings.arms else "it has none"
        raise RunError(f"--arm {arm}: {run_path} has no such variant; {known}")
    settings = run.settings.ppo_of(arm)
    by_model = kind_of(settings.scorer).needs_reward_model
    if by_model and not is_whole(run.artifact(REWARD)):
        raise RunError(f"{run_path}: has no reward model yet; run `triphase reward` with its configuration first")
    with scorer_of(run, settings) as scorer:
        answers = _answers(file, run if by_model else None)
        while rows := list(islice(answers, _ROWS)):
            yield from _scored(scorer, rows, found)


def _scored(scorer: Scorer, rows: Sequence[Answered], found: FileScores) -> Iterator[dict[str, Any]]:
    scores = scorer.score([answer for _, answers, _ in rows for answer in answers])
    place = 0
    for row, answers, problem in rows:
        if problem is not None:
            found.unscored += 1
            yield {**row.values, "score": None, "problem": problem}
            continue
        total = scores.total[place : place + len(answers)]
        if len(answers) == 2:
            found.right.append(1.0 if total[0] > total[1] else 0.5 if total[0] == total[1] else 0.0)
            yield {**row.values, "score_chosen": total[0], "score_rejected": total[1]}
        else:
            found.scores.append(total[0])
            parts = scores.parts_of(place)
            yield {**row.values, "score": total[0], **({"score_parts": parts} if parts else {})}
        place += len(answers)


def _answers(file: str, run: Run | None) -> Iterator[Answered]:
    """The rows with what is scored; encoded as the run's reward model reads it, where it is what scores."""
    for row in read_rows(SourceSettings(path=file), Path()):
        try:
            yield from [(row, answers, None) for answers in _answers_of(row, run)]
        except DataError as error:
            yield row, (), str(error)


def _answers_of(row: Row, run: Run | None) -> list[tuple[Answer, ...]]:
    if "chosen" in row.values and "rejected" in row.values:
        messages, chosen, rejected = compared(row)
        return [tuple(_answer(row, messages, response, run) for response in (chosen, rejected))]
    return [(_answer(row, messages, response, run),) for messages, response in answered(row)]


def _answer(row: Row, messages: tuple[Message, ...], response: str, run: Run | None) -> Answer:
    key = prompt_id(messages)
    prompt = Prompt(key, messages, "", split_of(messages, 0.0))
    if run is None:
        return Answer(prompt, response, True)
    template, limit = run.model().template, run.settings.model.max_length
    ids = tuple(template.response_ids(response))
    try:
        return Answer(
            prompt, response, True, Encoded(encode_prompt(prompt, template, room=len(ids), max_length=limit), ids)
        )
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from None
