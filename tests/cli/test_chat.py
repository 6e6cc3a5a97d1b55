"""A conversation: it remembers its turns, and forgets those that were refused."""

from pathlib import Path

import pytest
from tests.runs.small_run import do, settings, write_data
from tests.small import shared_model, stir

from triphase.cli.chat import talk
from triphase.errors import DataError, RunError
from triphase.models.roles import POLICY, REFERENCE
from triphase.runs import pipeline
from triphase.runs.conversation import Conversation
from triphase.runs.opening import open_policy


def conversation(limit: int = 60) -> Conversation:
    shared = shared_model()
    stir(shared, POLICY)
    return Conversation(shared, POLICY, max_length=limit)


def test_the_same_words_get_the_same_answer_and_the_past_counts() -> None:
    first, second = conversation(), conversation()
    answers = [first.say("oak"), first.say("red")]
    assert answers == [second.say("oak"), second.say("red")]
    assert [turn.role for turn in first._turns] == ["user", "assistant", "user", "assistant"]
    other = conversation()
    other.say("elm")
    assert other.say("red") != answers[1]  # the same turn after another past; the seed counts turns, so it is equal
    first.forget()
    assert [first.say("oak"), first.say("red")] == answers


def test_a_turn_that_is_too_long_is_refused_and_not_remembered() -> None:
    subject = conversation(limit=40)
    with pytest.raises(DataError, match=r"passes model\.max_length = 40"):
        subject.say(" ".join(["oak"] * 50))
    assert subject._turns == []
    subject.say("oak")


def test_talking_ends_with_an_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = iter(["sun road", "/new", "rain", ""])
    talk("embedded:tiny", lambda: next(lines))
    assert next(lines, "all read") == "all read"
    assert "Write a message" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_opens_where_it_stands_now(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path)
    do(settings(tmp_path, method=method), pipeline.run_sft)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "runs" / "small").rename(tmp_path / "elsewhere" / "renamed")
    monkeypatch.chdir(tmp_path / "elsewhere")
    shared, adapter, _ = open_policy(Path("renamed"))
    assert adapter == (REFERENCE if method == "lora" else None)
    assert shared.backbone.layer_count == 2
    assert moved.is_dir()


def test_a_run_without_a_policy_says_so(tmp_path: Path) -> None:
    write_data(tmp_path)
    do(settings(tmp_path))
    with pytest.raises(RunError, match="has no policy yet; run `triphase run`"):
        open_policy(tmp_path / "runs" / "small")
