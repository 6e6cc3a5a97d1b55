"""The judgments of criteria on responses: a score of each, cached, or a verdict on each pair."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from triphase.monitoring.progress import Progress
from triphase.records.files import append_json_lines
from triphase.reports.comparison import Judgment
from triphase.reports.duels import Duel
from triphase.reports.file_shapes import shaped_rows
from triphase.rewards.pair_judge import PairVerdict, position_bias
from triphase.rewards.types import Answer
from triphase.runs.comparison_responses import Spoken
from triphase.runs.criteria import Criterion, scoring_by
from triphase.runs.sides import ComparedPolicy

SCORES = "scores.jsonl"
_AT_ONCE = 512
"""Number of responses after which completed work is stored."""


@dataclass(frozen=True, slots=True)
class KeptScore:
    """A line of `scores.jsonl`."""

    key: str
    score: float | None


def scores_by(
    criterion: Criterion, spoken: Sequence[Spoken], directory: Path, progress: Progress
) -> list[float | None]:
    """The scores of each response by a criterion, in order; None without a score. Equal texts are scored once."""
    path, keys = directory / SCORES, [_hash(criterion, each) for each in spoken]
    kept: dict[str, float | None] = {row["key"]: row["score"] for row in shaped_rows(path, KeptScore)}
    missing = list({key: each for key, each in zip(keys, spoken, strict=True) if key not in kept}.items())
    if missing:
        with scoring_by(criterion) as score, progress.track(criterion.name, len(missing), unit="responses") as track:
            for start in range(0, len(missing), _AT_ONCE):
                part = missing[start : start + _AT_ONCE]
                given = score([each.said for _, each in part])
                values = [None if value is None or not math.isfinite(value) else float(value) for value in given]
                new = {key: value for (key, _), value in zip(part, values, strict=True)}
                append_json_lines(path, [{"key": key, "score": value} for key, value in new.items()])
                kept |= new
                track.advance(len(part))
    return [kept[key] for key in keys]


def verdicts_by(
    criterion: Criterion, spoken: Sequence[Spoken], sides: Sequence[ComparedPolicy], directory: Path
) -> Judgment:
    """The n-th response of each side against the n-th of each other to the same prompt, in both orders.

    Pairs of the same text are ties, and are not judged.
    """
    assert criterion.judge is not None  # noqa: S101 - only these criteria come here
    said = {each.key: each for each in spoken}
    pairs = [
        (said[first.digest, prompt, number], said[second.digest, prompt, number])
        for first, second in itertools.combinations(sides, 2)
        for side, prompt, number in said
        if side == first.digest
    ]
    alike = [first.said == second.said for first, second in pairs]
    with closing(criterion.judge(directory)) as judge:
        asked = [
            (Answer(*first.said), Answer(*second.said))
            for (first, second), same in zip(pairs, alike, strict=True)
            if not same
        ]
        given = judge.compare(asked)
    verdicts, duels = iter(given), list[Duel]()
    for (first, second), same in zip(pairs, alike, strict=True):
        outcome = (PairVerdict(0.5, 0.5) if same else next(verdicts)).outcome
        if not math.isnan(outcome):
            longer = len(first.said[1]) - len(second.said[1])
            duels.append(Duel(first.prompt.id, first.side.name, second.side.name, outcome, longer))
    bias = position_bias(given)
    return Judgment(
        duels=duels,
        unjudged=len(pairs) - len(duels),
        same=sum(alike),
        first=None if bias is None else bias.first,
        consistent=None if bias is None else bias.consistent,
    )


def scores_of(scores: Mapping[str, Sequence[float | None]], place: int) -> dict[str, float | None]:
    """The scores of one response by the names of criteria."""
    return {name: values[place] for name, values in scores.items()}


def _hash(criterion: Criterion, spoken: Spoken) -> str:
    prompt, response, finished = spoken.said
    turns = [[message.role, message.content] for message in prompt.messages]
    columns = json.dumps(dict(prompt.columns), sort_keys=True)
    whole = json.dumps([criterion.digest, turns, columns, response, finished])
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
