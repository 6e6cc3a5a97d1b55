"""The records shared by files, the store, the labeling and the phases. Frozen, and free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: a conversation that ends before the assistant's answer.

    A prompt given as plain text is one user message; a demonstration that is text alone has a prompt without messages.
    ``id`` is stable over imports (given, or a hash of the messages).

    Attributes:
        is_text: whether its record had a text, not a list of messages.
        columns: the values of its record by column, for a scorer that needs them; not kept in the store.
    """

    id: str
    messages: tuple[Message, ...]
    kind: str = ""
    split: Split = "train"
    is_text: bool = field(default=False, compare=False)
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def text(self) -> str:
        """The last message: the question, for display. Plain text that is trained on whole has none."""
        return self.messages[-1].content if self.messages else ""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An ideal response to a prompt, written by a person: the data of supervised fine-tuning."""

    prompt: Prompt
    response: str
    kind: str = "instruction"


@dataclass(frozen=True, slots=True)
class Response:
    """A response to a prompt, and its author. ``finished`` is False if generation was cut at its limit."""

    id: str
    prompt_id: str
    text: str
    model: str
    finished: bool = True
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """One labeler's order of the responses to one prompt.

    ``places`` maps a response id to its place, 1 the best; equal places are ties; a response that is absent was not
    ranked. ``order_shown`` is the order of the ids on the page. Times are seconds since the epoch, UTC.
    """

    id: str
    prompt_id: str
    labeler: str
    places: Mapping[str, int]
    order_shown: tuple[str, ...]
    submitted_at: float
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses of one group, by index; ``target`` is the probability that the first is preferred (0.5 a tie)."""

    first: int
    second: int
    target: float
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class RankedGroup:
    """Everything known about the ranking of the responses to one prompt: one batch element of the reward model.

    ``responses`` are distinct texts; ``finished`` says for each whether it includes the end token.
    """

    prompt: Prompt
    responses: tuple[str, ...]
    finished: tuple[bool, ...]
    pairs: tuple[Pair, ...]
    source: str = ""
    labelers: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class RankedAnswers:
    """The ranked texts of one row of a data set; equal places are ties."""

    texts: tuple[str, ...]
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One preference in the format of data sets: chosen over rejected, with an optional margin.

    ``chosen_finished`` and ``rejected_finished`` are False if generation was cut, None if unknown. ``ranking`` is the
    source of the two, one object for all of its pairs; with ``tied`` neither is better.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None
    labeler: str = ""
    chosen_finished: bool | None = None
    rejected_finished: bool | None = None
    tied: bool = False
    ranking: RankedAnswers | None = field(default=None, compare=False)
