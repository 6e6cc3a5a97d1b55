"""Talking to a policy: one turn after another."""

from triphase.batches.order import seed_of
from triphase.models.roles import SharedModel
from triphase.records.types import Message, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.runs.opening import open_any
from triphase.tokens.encoding import encode_prompt

MAX_RESPONSE_TOKENS = 256
TEMPERATURE = 0.7


class Conversation:
    """A dialogue with one policy; it remembers all turns."""

    def __init__(self, shared: SharedModel, adapter: str | None, *, max_length: int) -> None:
        self._shared = shared
        self._generator = LocalGenerator(shared, adapter=adapter, batch_size=1)
        self._max_length = max_length
        self._turns: list[Message] = []

    def say(self, text: str) -> str:
        """The policy's answer to the next turn."""
        turns = [*self._turns, Message("user", text)]
        ids = encode_prompt(Prompt("chat", tuple(turns)), self._shared.template, room=1, max_length=self._max_length)
        room = min(MAX_RESPONSE_TOKENS, self._max_length - len(ids))
        request = Request(ids, seed_of(0, "chat", len(turns)))
        generated = self._generator.generate([request], temperature=TEMPERATURE, max_response_tokens=room)
        answer = self._shared.template.text(generated[0].ids)
        self._turns = [*turns, Message("assistant", answer)]  # a turn that was refused is not remembered
        return answer

    def forget(self) -> None:
        """Begin anew."""
        self._turns.clear()


def conversation_with(model: str, checkpoint: int | None) -> Conversation:
    """A new dialogue with the PPO policy of a run directory, or with a model by directory or hub id."""
    shared, adapter, max_length = open_any(model, checkpoint)
    return Conversation(shared, adapter, max_length=max_length)
