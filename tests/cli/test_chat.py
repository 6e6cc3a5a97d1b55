"""A conversation remembers its turns and forgets rejected ones."""

from pathlib import Path

import pytest
import torch
from tests.runs.small_run import do, settings, write_data
from tests.small import shared_model, stir

from triphase.batches.padding import pad_batch
from triphase.cli.chat import chat, talk
from triphase.cli.main import main
from triphase.errors import DataError, RunError, SettingsError
from triphase.models.roles import POLICY, REFERENCE
from triphase.records.types import Message
from triphase.runs import pipeline
from triphase.runs.conversation import Conversation, Talk, conversation_with
from triphase.runs.opening import open_policy
from triphase.tokens.encoding import Encoded


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
    with pytest.raises(DataError, match=r"exceeds model\.max_length = 40"):
        subject.say(" ".join(["oak"] * 50))
    assert subject._turns == []
    subject.say("oak")


def test_talking_ends_with_an_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = iter(["sun road", "/new", "rain", ""])
    talk([conversation_with("embedded:tiny")], ["tiny"], lambda: next(lines))
    assert next(lines, "all read") == "all read"
    assert "Write a message" in capsys.readouterr().out


def test_a_policy_that_is_nearly_spelled_so_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("triphase.cli.chat._policies_of", lambda model: ("sft", "ppo", "no-kl"))
    assert main(["chat", str(tmp_path), "--against", "nokl"]) == 2
    assert f"--against nokl: is not a policy of {tmp_path}; did you mean no-kl?" in capsys.readouterr().err


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


def test_the_system_text_comes_first_and_stays_and_the_coldest_answer_is_the_likeliest() -> None:
    shared = shared_model()
    stir(shared, POLICY)
    cold = Conversation(shared, POLICY, max_length=60, talk=Talk(8, 0.0, "elm"))
    ids = shared.template.prompt_ids([Message("system", "elm"), Message("user", "oak")])
    batch = pad_batch([Encoded(tuple(ids), (ids[-1],))], pad_id=shared.template.pad_id, device=shared.device)
    with torch.no_grad(), shared.role(POLICY):
        logits = shared.backbone.whole(batch.input_ids, at=batch.predicting_tokens) @ shared.backbone.head_weight.T
    first = cold.say("oak")
    assert first.startswith(shared.template.text([int(logits[-1].argmax())]).strip())
    assert [turn.role for turn in cold._turns] == ["system", "user", "assistant"]
    cold.forget()
    assert [turn.role for turn in cold._turns] == ["system"] and cold.say("oak") == first
    assert len(shared.template.response_ids(first, finished=False)) <= 8


def test_two_policies_of_a_run_answer_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    do(settings(tmp_path, method="lora"), pipeline.run_sft)
    run = tmp_path / "runs" / "small"
    lines = iter(["sun road", ""])
    talk(
        [conversation_with(str(run), policy="sft"), conversation_with("embedded:tiny")],
        ["sft", "base"],
        lambda: next(lines),
    )
    shown = capsys.readouterr().out
    assert "sft" in shown and "base" in shown
    for policy, problem in (("ppo", "has not trained it yet"), ("none", "has no such policy; it has sft, ppo")):
        with pytest.raises(RunError, match=f"--policy {policy}: .*{problem}"):
            open_policy(run, policy=policy)
    with pytest.raises(RunError, match="--checkpoint 2: is an iteration of ppo"):
        open_policy(run, 2, "sft")
    with pytest.raises(RunError, match="only a run has several policies"):
        conversation_with("embedded:tiny", policy="sft")
    for option, value in (("temperature", -1.0), ("max_tokens", 0)):
        with pytest.raises(SettingsError, match=f"--{option.replace('_', '-')} {value}: must lie between"):
            chat(str(run), **{option: value})


def test_a_name_that_opens_nothing_is_told_as_it_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    place = str(tmp_path / "empty")
    for words in ([place], ["embedded:tiny", "--against", place]):
        assert main(["chat", *words]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith(f"error: {place} has no config.json")


def test_what_a_model_says_does_not_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A title of the window, a color, a text that runs backwards, and markup of rich's."""

    class Hostile:
        def say(self, line: str) -> str:
            return "\x1b]0;owned\x07 \x1b[31mred \u202eevil \u3164 [/x] [red]plain[/red]"

    for count in (1, 2):
        lines = iter(["hello", ""])
        talk([Hostile()] * count, ["one", "two"][:count], lambda lines=lines: next(lines))  # type: ignore[list-item]
        said = capsys.readouterr().out
        assert not set("\x1b\x07\u202e\u3164") & set(said)
        assert "⟦U+001B⟧" in said and "[/x]" in said and "[red]" in said
