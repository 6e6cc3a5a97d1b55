"""A message that one of two policies rejects: it is reported, neither remembers it, and the conversation continues."""

import pytest

from triphase.cli.chat import talk
from triphase.errors import DataError


class Answering:
    """Stands for a conversation with room for so many signs."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.turns: list[str] = []

    def say(self, text: str) -> str:
        if len(text) > self.room:
            raise DataError(f"the prompt exceeds model.max_length = {self.room}")
        self.turns += [text, text.upper()]
        return self.turns[-1]

    def take_back(self) -> None:
        self.turns = self.turns[:-2]

    def forget(self) -> None:
        self.turns = []


def test_a_message_that_is_too_long_ends_no_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    long, short = Answering(99), Answering(4)
    lines = iter(["oak", "hazel", "red", ""])
    talk([long, short], ["long", "short"], lambda: next(lines))  # type: ignore[list-item]
    said = capsys.readouterr().out
    assert "exceeds model.max_length = 4; /new begins a new conversation" in said and "HAZEL" not in said
    assert long.turns == short.turns == ["oak", "OAK", "red", "RED"]
