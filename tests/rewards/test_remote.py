"""A remote scorer's answers: one number per response, in order; a missing score is NaN, an error is reported."""

import math
from typing import Any

import pytest
from tests.rollouts.fake_server import Asked, FakeServer, Reply

from triphase.errors import ServerError
from triphase.records.types import Message, Prompt
from triphase.rewards.registry import examine
from triphase.rewards.remote import RemoteScorer, _query
from triphase.rewards.types import Answer
from triphase.settings.scorer import ScorerSettings


def answers(count: int) -> list[Answer]:
    messages = (Message("system", "be brief"), Message("user", "who?"))
    return [Answer(Prompt(f"p{index}", messages), f"text {index}", index % 2 == 0) for index in range(count)]


def scores(reply: Any, count: int = 3, **changes: Any) -> tuple[list[float], list[Asked]]:
    server = FakeServer(lambda asked: Reply(body=reply(asked.body) if callable(reply) else reply))
    with server.running():
        settings = ScorerSettings.model_validate({"address": server.address + "/score", "retries": 0, **changes})
        made = RemoteScorer(settings)
        try:
            return list(made.score(answers(count)).total), server.asked
        finally:
            made.close()


def test_each_response_is_sent_once_and_scored_in_order() -> None:
    found, asked = scores(
        lambda body: {"scores": [float(item["response"].split()[1]) for item in body["items"]]}, 5, batch_size=2
    )
    assert found == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [len(one.body["items"]) for one in asked] == [2, 2, 1] and {one.path for one in asked} == {"/score"}
    assert asked[0].body["items"][1] == {
        "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who?"}],
        "response": "text 1",
        "finished": False,
    }


def test_what_is_no_score_is_nan_or_infinite() -> None:
    found, _ = scores(b'{"scores": [null, NaN, -Infinity]}')
    assert math.isnan(found[0]) and math.isnan(found[1]) and found[2] == -math.inf
    assert scores(b'{"scores": [1, 2, 1' + b"0" * 400 + b"]}")[0] == [1.0, 2.0, math.inf]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"scores": [1.0, 2.0]}, "returns 2 scores for 3 responses"),
        ({"scores": [1.0, 2.0, 3.0, 4.0]}, "returns 4 scores for 3 responses"),
        ({"scores": [1.0, "high", 3.0]}, "'high' as a score"),
        ({"scores": [1.0, True, 3.0]}, "'True' as a score"),
        ({"scores": 1.0}, 'without a list "scores"'),
        ([1.0, 2.0, 3.0], 'without a list "scores"'),
    ],
)
def test_an_answer_of_another_shape_is_told(body: Any, problem: str) -> None:
    with pytest.raises(ServerError, match=rf"ppo.scorer.address: http\S+/score .*{problem}"):
        scores(body)


@pytest.mark.parametrize("name", ["t0ken_of_mine_77", "x_ken_of_mi", "77_enim_fo", b"t0ken_of_mine_77".hex()[:39]])
def test_a_part_is_not_called_after_the_token(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SCORER_PASS", "T0ken_of_mine_77")
    name = name if name[0].isalpha() else f"a{name}"
    for values in ([1.0, 2.0, 3.0], [1.0], "x"):
        body = {"scores": [1.0, 2.0, 3.0], "parts": {name: values}}
        with pytest.raises(ServerError, match="a part whose name contains the token") as caught:
            scores(body, token_variable="SCORER_PASS")
        assert name not in str(caught.value)


def test_servers_of_openrlhf_are_asked_in_its_shape() -> None:
    found, asked = scores(lambda body: {"rewards": [float(text[-1]) for text in body["query"]]}, 2, format="openrlhf")
    assert found == [0.0, 1.0]
    assert asked[0].body == {
        "query": ["be brief\n\nwho?\n\ntext 0", "be brief\n\nwho?\n\ntext 1"],
        "prompts": ["be brief\n\nwho?"] * 2,
        "labels": ["", ""],
    }
    with pytest.raises(ServerError, match='without a list "rewards"'):
        scores({"scores": [1.0, 2.0]}, 2, format="openrlhf")
    with pytest.raises(ValueError, match="format applies to servers only, not to a scorer of kind model"):
        ScorerSettings(format="openrlhf")


def test_a_record_without_a_label_has_an_empty_one() -> None:
    prompts = [Prompt("p", (), columns=columns) for columns in ({"label": None}, {}, {"label": 0})]
    assert _query([Answer(prompt, "", True) for prompt in prompts])["labels"] == ["", "", "0"]


def test_before_the_first_step_two_answers_are_scored() -> None:
    settings = {"retries": 0, "timeout_seconds": 5}
    with FakeServer(lambda asked: Reply(body={"scores": [1.0, None]})).running() as server:
        gone = server.address
        examine(ScorerSettings.model_validate({"address": gone, **settings}))
        assert [len(asked.body["items"]) for asked in server.asked] == [2]
    with pytest.raises(ServerError, match=r"ppo\.scorer\.address: http\S+ cannot be reached"):
        examine(ScorerSettings.model_validate({"address": gone, **settings}))
    with FakeServer(lambda asked: Reply(body=b'{"scores": [null, NaN]}')).running() as server:
        with pytest.raises(
            ServerError, match=r"variants\.x\.scorer\.address: http\S+ returns no score \(null or NaN\) for"
        ):
            examine(ScorerSettings.model_validate({"address": server.address, **settings}), setting="variants.x.scorer")
