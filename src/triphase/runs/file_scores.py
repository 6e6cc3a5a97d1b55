"""Scores by the reward of a run for prompts and responses in a file."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from triphase.datacheck.agenda import left_out
from triphase.errors import DataError, RunError, UnscoredAnswer
from triphase.records.forms import form_named
from triphase.records.lines import RecordError, Row
from triphase.records.prompt_columns import with_columns
from triphase.records.reading import Located, stream_demonstrations, stream_preferences
from triphase.records.source_rows import read_rows
from triphase.records.types import Comparison, Demonstration, Prompt
from triphase.reports.intervals import SHARE, Interval, ratio_over_prompts
from triphase.rewards.registry import needs_reward_model
from triphase.rewards.types import Answer, Scorer, Scores
from triphase.runs.opening import open_run
from triphase.runs.scoring import scorer_of
from triphase.runs.session import Run
from triphase.settings.data import SourceSettings
from triphase.settings.phase_names import REWARD
from triphase.tokens.encoding import encode_answer
from triphase.training.artifacts import is_whole

_ROWS = 256
Encode = Callable[[Prompt, str, bool], Answer]


@dataclass(frozen=True, slots=True)
class Scorable:
    """A row with its one response, or with the chosen and the rejected one; or with why it cannot be scored."""

    values: dict[str, Any]
    answers: tuple[Answer, ...] = ()
    problem: str | None = None


@dataclass(slots=True)
class FileScores:
    """The results so far.

    Attributes:
        scores: of rows with one response.
        unscored: number of rows without a score: they cannot be read, or exceed `model.max_length`.
        right: for the comparisons of each prompt: 1 if the chosen response has the higher score, ½ if both have the
            same.
        replaced: columns of the file whose names the scores have too.
    """

    scores: list[float] = field(default_factory=list)
    unscored: int = 0
    right: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    replaced: set[str] = field(default_factory=set)

    def added(self, values: Mapping[str, Any], **results: Any) -> dict[str, Any]:
        """A row with results; a column of their name is replaced, and counted."""
        self.replaced |= values.keys() & results.keys()
        return {**values, **results}

    @property
    def comparisons(self) -> int:
        """The number of scored comparisons."""
        return sum(map(len, self.right.values()))

    @property
    def accuracy(self) -> Interval | None:
        """The share of comparisons that the scores order as the file does; None if there are none."""
        sums, counts = list(map(sum, self.right.values())), list(map(len, self.right.values()))
        return ratio_over_prompts(sums, counts, within=SHARE)


def score_rows(run_path: Path, file: str, variant: str | None, found: FileScores) -> Iterator[dict[str, Any]]:
    """Each row of a file with its score, or with those of ``chosen`` and ``rejected``; ``found`` is filled on the way.

    A row that cannot be used has no score, and the reason under ``problem``.

    Raises:
        RunError: the run has no such variant, or no reward model yet.
        DataError: the file cannot be read, or none of its rows can.
        SettingsError: the scorer is a function that needs a column missing in the rows.
    """
    run = open_run(run_path)
    if variant is not None and variant not in run.settings.variants:
        known = f"it has {', '.join(run.settings.variants)}" if run.settings.variants else "it has none"
        raise RunError(f"--variant {variant}: {run_path} has no such variant; {known}")
    settings = run.settings.ppo_of(variant)
    by_model = needs_reward_model(settings.scorer)
    if by_model and not is_whole(run.artifact(REWARD)):
        why = left_out(run.settings).get("reward")
        remedy = "run `triphase reward` with its configuration first" if why is None else f"it trains none: {why}"
        raise RunError(f"{run_path}: has no reward model to score with; {remedy}")
    with scorer_of(run, settings) as scorer:
        rows = _rows(file, encoder_of(run) if by_model else Answer, columns=settings.scorer.takes_columns)
        part = list(islice(rows, _ROWS))
        answers = [answer for row in part for answer in row.answers]
        if answers:
            scorer.require_columns(list(dict.fromkeys(name for answer in answers for name in answer.prompt.columns)))
        while part:
            yield from _scored(scorer, part, found)
            part = list(islice(rows, _ROWS))


def _scored(scorer: Scorer, rows: Sequence[Scorable], found: FileScores) -> Iterator[dict[str, Any]]:
    parts = list(_attempted(scorer, rows))
    errors = [scores for _, scores in parts if isinstance(scores, UnscoredAnswer)]
    if errors and not any(scores.total for _, scores in parts if isinstance(scores, Scores)):
        raise errors[0]  # the scorer is at fault, not some rows
    for part, scores in parts:
        if isinstance(scores, Scores):
            yield from _with_scores(scorer, part, scores, found)
        else:
            found.unscored += 1
            yield found.added(part[0].values, score=None, problem=scores.problem)


def _attempted(
    scorer: Scorer, rows: Sequence[Scorable]
) -> Iterator[tuple[Sequence[Scorable], Scores | UnscoredAnswer]]:
    """Rows with their scores, by halves down to a row on which the scorer fails, with the error."""
    answers = [answer for row in rows for answer in row.answers]
    try:
        yield rows, scorer.score(answers) if answers else Scores(())
    except UnscoredAnswer as error:
        if len(rows) == 1:
            yield rows, error
            return
        half = len(rows) // 2
        yield from _attempted(scorer, rows[:half])
        yield from _attempted(scorer, rows[half:])


def _with_scores(
    scorer: Scorer, rows: Sequence[Scorable], scores: Scores, found: FileScores
) -> Iterator[dict[str, Any]]:
    place = 0
    for row in rows:
        if row.problem is not None:
            found.unscored += 1
            yield found.added(row.values, score=None, problem=row.problem)
            continue
        total = scores.total[place : place + len(row.answers)]
        if not all(map(math.isfinite, total)):
            found.unscored += 1
            yield found.added(row.values, score=None, problem=f"{scorer.name} gave no score")
        elif len(row.answers) == 2:
            right = 1.0 if total[0] > total[1] else 0.5 if total[0] == total[1] else 0.0
            found.right[row.answers[0].prompt.id].append(right)
            yield found.added(row.values, score_chosen=total[0], score_rejected=total[1])
        else:
            found.scores.append(total[0])
            parts = scores.parts_of(place)
            yield found.added(row.values, score=total[0], **({"score_parts": parts} if parts else {}))
        place += len(row.answers)


def _rows(file: str, encode: Encode, *, columns: bool) -> Iterator[Scorable]:
    """The rows in their order, including refused ones. ``columns``: whether the scorer needs them."""
    source, refused = SourceSettings(path=file), list[DataError]()
    first = next(read_rows(source, Path(), refused.append), None)
    compares = first is not None and "chosen" in first.values
    if first is not None and not compares and form_named(first, "demonstrations") is None:
        if (form := form_named(first, "preferences")) is not None:
            raise DataError(
                f"{first.where}: read as {form.name}; rows with one response each, or with chosen and rejected, are "
                "scored: write one of these for each response or pair"
            )
    refused.clear()
    records: Iterator[Located[Comparison] | Located[Demonstration]] = (
        stream_preferences(source, Path(), 0.0, refused.append)
        if compares
        else stream_demonstrations(source, Path(), 0.0, refused.append, is_learned=False)
    )
    try:
        for located in chain(records, (None,)):  # refused records after the last valid one are yielded too
            yield from (_unusable(error, compares=compares) for error in refused)
            refused.clear()
            if located is not None and located.row is not None:
                yield _scorable(located.row, located.record, encode, columns=columns)
    except DataError as error:
        raise DataError(f"{error}; the first: {refused[0]}" if refused else str(error)) from None


def _scorable(row: Row, record: Comparison | Demonstration, encode: Encode, *, columns: bool) -> Scorable:
    values = dict(row.values)
    try:
        prompt = with_columns(record.prompt, row) if columns else record.prompt
        if isinstance(record, Demonstration):
            return Scorable(values, (encode(prompt, record.response, True),))
        chosen = encode(prompt, record.chosen, record.chosen_finished is not False)
        return Scorable(values, (chosen, encode(prompt, record.rejected, record.rejected_finished is not False)))
    except DataError as error:
        return Scorable(values, problem=f"{row.where}: {error}")


def _unusable(error: DataError, *, compares: bool) -> Scorable:
    text = error.text if isinstance(error, RecordError) else None
    problem, belongs, _ = str(error).partition(": such files belong under data.")
    if belongs:
        first = "is a comparison" if compares else "has one response"
        found = problem.rpartition("; ")[0]
        problem = f"{found}; the first row of the file {first}, and so must all others; score the rest as another file"
    return Scorable({} if text is None else {"row": text}, problem=problem)


def encoder_of(run: Run) -> Encode:
    """Answers with the ids for the run's reward model."""
    limit = run.settings.model.max_length

    def encode(prompt: Prompt, response: str, finished: bool) -> Answer:
        sample = encode_answer(prompt, response, run.model().template, finished=finished, max_length=limit)
        if sample is None:
            raise DataError("the response has no tokens and cannot be scored")
        return Answer(prompt, response, finished, sample)

    return encode
