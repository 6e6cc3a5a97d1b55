"""Chat with a policy, one turn after another."""

from dataclasses import dataclass

from triphase.batches.order import seed_of
from triphase.models.roles import SharedModel
from triphase.records.types import Message, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.runs.opening import open_any
from triphase.tokens.encoding import encode_prompt

# A temperature of 0 means greedy: dividing by this leaves no other token any probability.
_COLDEST = 1e-4


@dataclass(frozen=True, slots=True)
class Talk:
    """Sampling options: the maximum length, the temperature (0: the most likely token), and the system prompt."""

    max_response_tokens: int = 256
    temperature: float = 0.7
    system: str | None = None


_PLAIN = Talk()


class Conversation:
    """A dialogue with one policy; it keeps all turns."""

    def __init__(self, shared: SharedModel, adapter: str | None, *, max_length: int, talk: Talk = _PLAIN) -> None:
        self._shared = shared
        self._generator = LocalGenerator(shared, adapter=adapter, batch_size=1)
        self._max_length = max_length
        self._talk = talk
        self._turns: list[Message] = []
        self.forget()

    def say(self, text: str) -> str:
        """The policy's response to the next turn."""
        turns = [*self._turns, Message("user", text)]
        ids = encode_prompt(Prompt("chat", tuple(turns)), self._shared.template, room=1, max_length=self._max_length)
        room = min(self._talk.max_response_tokens, self._max_length - len(ids))
        request = Request(ids, seed_of(0, "chat", len(turns)))
        generated = self._generator.generate(
            [request], temperature=max(self._talk.temperature, _COLDEST), max_response_tokens=room
        )
        answer = self._shared.template.text(generated[0].ids)
        self._turns = [*turns, Message("assistant", answer)]  # a turn that was refused is not kept
        return answer

    def take_back(self) -> None:
        """Remove the last turn and its response."""
        self._turns = self._turns[:-2]

    def forget(self) -> None:
        """Start over."""
        self._turns = [] if self._talk.system is None else [Message("system", self._talk.system)]


def conversation_with(
    model: str, checkpoint: int | None = None, policy: str | None = None, talk: Talk = _PLAIN
) -> Conversation:
    """A new dialogue with the PPO policy of a run directory, or with a model by directory or hub id."""
    shared, adapter, max_length = open_any(model, checkpoint, policy)
    return Conversation(shared, adapter, max_length=max_length, talk=talk)
