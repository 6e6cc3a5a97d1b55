"""The criteria of `compare` for better responses: gold, the rewards of runs, any scorer, a judge of pairs, people."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from triphase.datacheck.model_names import place_of as place_of_model
from triphase.errors import DataError, SettingsError
from triphase.records.types import Prompt
from triphase.rewards.pair_judge import PairJudge
from triphase.rewards.registry import kind_of, needs_reward_model, opened
from triphase.rewards.types import Answer, Scorer, ScorerContext
from triphase.rewards.weighted import units_file
from triphase.runs.file_scores import encoder_of
from triphase.runs.opening import open_run
from triphase.runs.scoring import scorer_of
from triphase.runs.session import Run
from triphase.runs.sides import ComparedPolicy
from triphase.settings.phase_names import REWARD
from triphase.settings.places import anchor_scorer
from triphase.settings.scorer import ScorerSettings
from triphase.settings.source import read_source
from triphase.training.artifacts import is_whole, sum_of

GOLD, REWARDS, PEOPLE = "gold", "reward", "people"
Said = tuple[Prompt, str, bool]
"""A prompt, a response to it, and whether it is finished."""
Score = Callable[[Sequence[Said]], list[float | None]]
Open = Callable[[], "Iterator[Score]"]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One way to decide which response is better.

    Attributes:
        name: its name in tables; unique in a comparison.
        about: whose judgment it is, in words.
        digest: identifies cached scores of this criterion.
        scores: opens the scorer of responses; None if pairs are judged.
        judge: opens the judge of pairs, with the directory for its verdicts.
        takes_columns: whether it needs the columns of the prompts' records.
        people: labelers judge, on the page of the comparison's own store.
    """

    name: str
    about: str
    digest: str
    scores: Open | None = None
    judge: Callable[[Path], PairJudge] | None = None
    takes_columns: bool = False
    people: bool = False


def criteria_of(by: Sequence[str] | None, sides: Sequence[ComparedPolicy]) -> list[Criterion]:
    """The criteria named in ``by`` (`gold`, `reward`, `people`, a scorer's file); by default all that the runs have.

    Raises:
        SettingsError: there is none, or one cannot be used.
    """
    runs = {side.run: open_run(side.run) for side in sides if side.run is not None}
    found: list[Criterion] = []
    for name in by if by is not None else (GOLD, REWARDS):
        match name:
            case "gold":
                new = _golds(list(runs.values()))
            case "reward":
                new = _rewards(list(runs.values()))
            case "people":
                new = [Criterion(PEOPLE, "people, blind, on the labeling page", _digest(PEOPLE), people=True)]
            case _:
                new = [_of_file(Path(name))]
        if not new and by is not None:
            what = "gold score (evaluation.gold)" if name == GOLD else "usable reward"
            raise SettingsError(f"--by {name}: no run among the sides has a {what}; give a file with a scorer")
        found += new
    if not found:
        raise SettingsError(
            "there is no criterion to compare by: no side belongs to a run with a gold score or a "
            "reward; give --by FILE"
        )
    names = [each.name for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f"--by {twice[0]}: is given twice")
    return found


def _golds(runs: Sequence[Run]) -> list[Criterion]:
    by_name = {run.settings.evaluation.gold: run for run in runs if run.gold is not None}
    return [
        Criterion(
            GOLD if len(by_name) == 1 else f"{GOLD} {name}",
            f"the gold score {name}",
            _digest(GOLD, str(name)),
            _gold_of(run),
        )
        for name, run in by_name.items()
    ]


def _gold_of(run: Run) -> Open:
    def scored(said: Sequence[Said]) -> list[float | None]:
        assert run.gold is not None  # noqa: S101 - only these runs come here
        return [run.gold(prompt.text, response, finished) for prompt, response, finished in said]

    def scoring() -> Iterator[Score]:
        yield scored

    return scoring


def _rewards(runs: Sequence[Run]) -> list[Criterion]:
    """The rewards of runs, each once: runs that share a reward model and a scorer have one."""
    found: dict[str, Run] = {}
    for run in runs:
        scorer = run.settings.ppo.scorer
        by_model = needs_reward_model(scorer)
        if scorer.chosen == "object" or (by_model and not is_whole(run.artifact(REWARD))):
            continue
        if scorer.parts and not units_file(scorer, run.path).is_file():
            continue
        model = sum_of(run.artifact(REWARD)) if by_model else ""
        found.setdefault(_digest(REWARDS, json.dumps(scorer.model_dump(mode="json")), model), run)
    return [
        Criterion(
            REWARDS if len(found) == 1 else f"{REWARDS} of {run.path.name}",
            f"the reward of {run.path.name}",
            digest,
            _reward_of(run),
            takes_columns=run.settings.ppo.scorer.takes_columns,
        )
        for digest, run in found.items()
    ]


def _reward_of(run: Run) -> Open:
    def scoring() -> Iterator[Score]:
        by_model = needs_reward_model(run.settings.ppo.scorer)
        encode = encoder_of(run) if by_model else Answer
        with scorer_of(run, run.settings.ppo) as scorer:

            def scored(said: Sequence[Said]) -> list[float | None]:
                answers = [_encoded(encode, *each) for each in said]
                whole = [each for each in answers if each is not None]
                _require_columns(scorer, whole)
                given = iter(scorer.score(whole).total if whole else ())
                return [None if each is None else next(given) for each in answers]

            yield scored
        run.forget_model()

    return scoring


def _encoded(encode: Callable[[Prompt, str, bool], Answer], prompt: Prompt, text: str, finished: bool) -> Answer | None:
    """The response as input of the reward model; None if it has no tokens, or is too long."""
    try:
        return encode(prompt, text, finished)
    except DataError:
        return None


def _of_file(path: Path) -> Criterion:
    """The scorer whose settings (those of `ppo.scorer`) are in a file."""
    values = dict(read_source(path).values)
    anchor_scorer(values, path.absolute().parent)
    try:
        settings = ScorerSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(key) for key in first["loc"])
        why = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            why = "unknown setting; the file has what stands under ppo.scorer, for example kind, function or address"
        raise SettingsError(f"{path}: {f'{place}: ' if place else ''}{why}") from None
    kind_of(settings)
    if settings.chosen == "object" or needs_reward_model(settings):
        raise SettingsError(
            f"{path}: kind {settings.chosen} belongs to a run; give --by reward, with a side of that run"
        )
    digest = _digest("file", json.dumps(settings.model_dump(mode="json")))
    context = ScorerContext(settings, setting=str(path), place_of=place_of_model)
    if settings.chosen == "judge":
        return Criterion(path.stem, f"{path.name}: a judge of pairs, asked in both orders", digest, None,
                         lambda directory: PairJudge(context, directory))  # fmt: skip
    about, columns = f"{path.name}: a scorer of kind {settings.chosen}", settings.takes_columns
    return Criterion(path.stem, about, digest, _plain_scorer(context), takes_columns=columns)


def _plain_scorer(context: ScorerContext) -> Open:
    def scoring() -> Iterator[Score]:
        with opened(context) as scorer:

            def scored(said: Sequence[Said]) -> list[float | None]:
                answers = [Answer(*each) for each in said]
                _require_columns(scorer, answers)
                return list(scorer.score(answers).total)

            yield scored

    return scoring


def _require_columns(scorer: Scorer, answers: Sequence[Answer]) -> None:
    """Refuse prompts without a column that a function needs, which would otherwise get None for each of them."""
    scorer.require_columns(list(dict.fromkeys(name for answer in answers for name in answer.prompt.columns)))


@contextmanager
def scoring_by(criterion: Criterion) -> Iterator[Score]:
    """The scorer of a criterion.

    Raises:
        TriphaseError: it cannot be opened.
    """
    assert criterion.scores is not None  # noqa: S101 - pairs are judged elsewhere
    opening = contextmanager(criterion.scores)
    with opening() as score:
        yield score


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
