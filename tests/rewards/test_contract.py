"""The contract of a scorer, for every kind: in order, whatever is in the batch, NaN refused, nothing from nothing."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.phases.test_ppo import phase
from tests.phases.test_ppo import settings as ppo_settings
from tests.rewards.test_classifier import classifier
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.runs import small_run
from tests.small import shared_model, stir

from triphase.datacheck.demands import require_settings
from triphase.errors import SettingsError, TriphaseError
from triphase.models.roles import REWARD, SharedModel
from triphase.records.types import Message, Prompt
from triphase.rewards.registry import KINDS, kind_of, opened
from triphase.rewards.types import Answer, Scorer, ScorerContext, Scores
from triphase.settings.scorer import ScorerSettings

TEXTS = ("oak 1", "red pine elm 2", "fir 3", "two two two two 4", "ash 5", "maple larch 6")


def answers(texts: Sequence[str] = TEXTS) -> list[Answer]:
    return [Answer(Prompt(f"p{n}", (Message("user", "one two"),)), text, n % 2 == 0) for n, text in enumerate(texts)]


def number_of(text: str) -> float:
    return float(text.split()[-1])


@contextmanager
def of_model() -> Iterator[Scorer]:
    with opened(ScorerContext(ScorerSettings(), reward_model=reward_model, max_tokens=20)) as scorer:
        yield scorer


def reward_model() -> SharedModel:
    shared = shared_model()
    stir(shared, REWARD, seed=1)
    return shared


@contextmanager
def of_server() -> Iterator[Scorer]:
    def reply(asked: Asked) -> Reply:
        return Reply(body={"scores": [number_of(item["response"]) for item in asked.body["items"]]})

    with FakeServer(reply).running() as server:
        with opened(ScorerContext(ScorerSettings(address=server.address, batch_size=4, retries=0))) as scorer:
            yield scorer


@contextmanager
def of_function() -> Iterator[Scorer]:
    settings = ScorerSettings(function="tests.rewards.functions:by_text", batch_size=4)
    with opened(ScorerContext(settings)) as scorer:
        yield scorer


@contextmanager
def of_object() -> Iterator[Scorer]:
    settings = ScorerSettings(kind="object", batch_size=4)
    with opened(
        ScorerContext(settings, scorer_object=lambda prompts, responses: [number_of(text) for text in responses])
    ) as it:
        yield it


@contextmanager
def of_classifier() -> Iterator[Scorer]:
    with tempfile.TemporaryDirectory() as folder:
        settings = ScorerSettings(kind="classifier", options={"model": str(classifier(Path(folder)))})
        with opened(ScorerContext(settings, max_tokens=20)) as scorer:
            yield scorer


def of_rule(kind: str, **options: Any) -> Callable[[], AbstractContextManager[Scorer]]:
    return lambda: opened(ScorerContext(ScorerSettings(kind=kind, options=options, batch_size=4)))


@contextmanager
def of_judge() -> Iterator[Scorer]:
    def reply(asked: Asked) -> Reply:
        text = json.loads(asked.body["messages"][1]["content"].split("\n")[1])["response"]
        return Reply(body={"choices": [{"message": {"content": json.dumps({"score": number_of(text)})}}]})

    with FakeServer(reply).running() as server:
        options = {"model": "m", "rubric": "be kind"}
        with opened(ScorerContext(ScorerSettings(kind="judge", address=server.address, options=options))) as scorer:
            yield scorer


SUM = [
    {"name": "number", "function": "tests.rewards.functions:by_text", "weight": 2.3, "calibrate": False},
    {"name": "short", "kind": "length", "options": {"least": 50, "unit": "characters"}, "calibrate": False},
]
OPENED: dict[str, Callable[[], object]] = {
    "model": of_model,
    "remote": of_server,
    "function": of_function,
    "object": of_object,
    "classifier": of_classifier,
    "length": of_rule("length", least=50, unit="characters"),
    "repetition": of_rule("repetition", n=1),
    "pattern": of_rule("pattern", pattern="two"),
    "json": of_rule("json"),
    "sentiment": of_rule("sentiment"),
    "judge": of_judge,
    "sum": lambda: opened(ScorerContext(ScorerSettings.model_validate({"of": SUM}))),
}
TELL_APART = set(OPENED) - {"length", "repetition", "pattern", "json", "sentiment"}
"""Kinds whose scores of `TEXTS` all differ."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scorer(kind: str) -> Iterator[Scorer]:
    assert kind in OPENED, f"{kind} is in KINDS; add a line to OPENED that opens it"
    with OPENED[kind]() as made:  # type: ignore[attr-defined]
        yield made


def test_each_answer_has_its_score_in_order(scorer: Scorer, kind: str) -> None:
    found = scorer.score(answers()).total
    assert len(found) == len(TEXTS) and all(type(score) is float and math.isfinite(score) for score in found)
    assert len(set(found)) == len(TEXTS) or kind not in TELL_APART
    backwards = scorer.score(answers()[::-1]).total
    assert backwards == pytest.approx(found[::-1], abs=1e-5)


def test_a_score_does_not_depend_on_what_is_scored_beside_it(scorer: Scorer) -> None:
    whole = scorer.score(answers()).total
    for size in (1, 2, 5):
        parts = [scorer.score(answers()[start : start + size]).total for start in range(0, len(TEXTS), size)]
        assert [score for part in parts for score in part] == pytest.approx(whole, abs=1e-5)


def test_nothing_has_no_scores(scorer: Scorer) -> None:
    assert scorer.score([]).total == ()


@pytest.mark.parametrize("kind", ["remote", "function", "object"], indirect=True)
def test_nan_is_refused_or_stays_nan_in_its_row(kind: str) -> None:
    assert kind in OPENED, f"{kind} is in KINDS; add a line to OPENED that opens it"
    with OPENED[kind]() as made:  # type: ignore[attr-defined]
        try:
            found = made.score(answers(("oak 1", "elm nan", "fir 3"))).total
        except TriphaseError as error:
            assert "response 1" in str(error)
        else:
            assert [math.isnan(score) for score in found] == [False, True, False]


def test_a_reward_model_of_nan_stays_nan() -> None:
    def broken() -> SharedModel:
        shared = reward_model()
        with torch.no_grad():
            shared.score_head.linear.weight.fill_(math.nan)
        return shared

    with opened(ScorerContext(ScorerSettings(), reward_model=broken)) as made:
        assert all(math.isnan(score) for score in made.score(answers()).total)


def test_ppo_learns_nothing_from_a_rollout_with_nan() -> None:
    class Holed(Scorer):
        def score(self, answers: Sequence[Answer]) -> Scores:
            return Scores((math.nan, *[1.0] * (len(answers) - 1)))

    ppo = phase(ppo_settings())
    ppo.scorer = Holed()
    before = {name: value.clone() for name, value in ppo.state.updater.parameters.items()}
    metrics = ppo.advance(0)
    assert metrics["ppo/skipped_steps"] == 1.0 and metrics["ppo/steps"] == 0.0
    assert all(torch.equal(value, before[name]) for name, value in ppo.state.updater.parameters.items())


def test_parts_land_in_metrics_and_samples() -> None:
    seen: list[object] = []
    with opened(ScorerContext(ScorerSettings(function="tests.rewards.functions:parts"))) as made:
        ppo = phase(ppo_settings())
        ppo.scorer, ppo.on_samples = made, lambda iteration, samples: seen.extend(samples)
        metrics = ppo.advance(0)
    words = [len(sample.response.split()) for sample in seen]  # type: ignore[attr-defined]
    assert metrics["ppo/score_part/words"] == pytest.approx(sum(words) / len(words))
    assert metrics["ppo/proxy_score"] == pytest.approx(2 * metrics["ppo/score_part/words"])
    assert [sample.score_parts for sample in seen] == [{"words": n, "one": 1.0} for n in words]  # type: ignore[attr-defined]


def test_an_unknown_kind_is_told_with_the_nearest() -> None:
    with pytest.raises(
        SettingsError, match=r"ppo\.scorer\.kind: 'functoin' is not a kind of scorer; did you mean funct"
    ):
        kind_of(ScorerSettings(kind="functoin"))
    with pytest.raises(SettingsError, match="there are model, remote, function"):
        kind_of(ScorerSettings(kind="zzz"))


def test_the_scorer_of_a_variant_is_named_as_its_own(tmp_path: Path) -> None:
    small_run.write_data(tmp_path)
    for scorer, says in (
        ({"function": "nosuch:f"}, r"^variants\.x\.scorer\.function: nosuch"),
        ({"kind": "nosuch"}, r"^variants\.x\.scorer\.kind: 'nosuch' is not a kind"),
        ({"of": [{"name": "a", "function": "nosuch:f"}]}, r"^variants\.x\.scorer\.of\.a\.function: nosuch"),
        (
            {"address": "http://127.0.0.1:9", "token_variable": "ABSENT"},
            r"^variants\.x\.scorer\.address: token_variable",
        ),
    ):
        with pytest.raises(TriphaseError, match=says):
            require_settings(small_run.settings(tmp_path, variants={"x": {"scorer": scorer}}), ("ppo",))
