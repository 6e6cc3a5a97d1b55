"""What a scorer takes and gives. Plain numbers, so that a scorer needs no torch."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

from triphase.records.types import Message, Prompt
from triphase.settings.scorer import ScorerSettings
from triphase.tokens.encoding import Encoded
from triphase.training.distributed.types import ALONE, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from triphase.batches.sharing import Batch
    from triphase.models.roles import SharedModel

    Part = tuple[list[int], Batch, Tensor]
    """Numbers of some answers, their batch, and the states of the shared trunk for it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is scored: a response to a prompt, and whether its end was sampled.

    ``sample`` has the token ids of both where they are known; a scorer of text does not need them.
    """

    prompt: Prompt
    response: str
    finished: bool
    sample: Encoded | None = None


@dataclass(frozen=True, slots=True)
class Answers(Sequence[Answer]):
    """Answers in order, with the trunk states that the caller has computed for them.

    Attributes:
        items: the answers.
        parts: the microbatches with their states, in a fresh iteration at each call. Only a scorer on the same base
            can use them; it then need not compute the trunk again.
    """

    items: tuple[Answer, ...]
    parts: "Callable[[], Iterator[Part]]"

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Answer, ...]: ...
    def __getitem__(self, index: int | slice) -> Answer | tuple[Answer, ...]:
        return self.items[index]


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of N answers, in order.

    Attributes:
        total: (N,) what is optimized. NaN where the scorer has no score; such a rollout is refused, never learned from.
        parts: (N,) each, by name: what the total is made of, for people to read. NaN where a part is not known.
        monitors: (N,) each, by the name of its metric (`ppo/NAME`): what is known beside the total, and no part of it.
    """

    total: tuple[float, ...]
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    monitors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def part_means(self) -> dict[str, float]:
        """The mean of each part, over the answers that have it."""
        known = {name: [value for value in values if math.isfinite(value)] for name, values in self.parts.items()}
        return {name: sum(values) / len(values) for name, values in known.items() if values}

    def parts_of(self, row: int) -> dict[str, float]:
        """The parts of one answer's score."""
        return {name: values[row] for name, values in self.parts.items() if math.isfinite(values[row])}


class Scorer(Protocol):
    """Anything that scores responses. A class of its own inherits from this one and writes `score`.

    Attributes:
        name: how messages call it.
        calibrated: whether scores of the SFT policy's samples have mean 0 and standard deviation 1, as those of a
            reward model have; the scale of any other is that of the first rollout.
        may_abstain: whether NaN stands for no opinion, which within a sum counts nothing; else it is no score.
    """

    name: str = "scorer"
    calibrated: bool = False
    may_abstain: bool = False

    def score(self, answers: Sequence[Answer]) -> Scores:
        """One score for each answer, in order, whatever else is in the batch.

        Raises:
            TriphaseError: there is none; one line that says where and what to do.
        """
        ...

    def examine(self) -> None:
        """What can be known before the first step of a run.

        Raises:
            TriphaseError: it cannot score.
        """
        return

    def require_columns(self, columns: Sequence[str]) -> None:
        """Look whether the prompts' records have what it wants to be given, by the names of their columns.

        Raises:
            SettingsError: it needs one that is not among them.
        """
        return

    def close(self) -> None:
        """Let go of what it holds."""
        return


@dataclass(frozen=True, slots=True)
class ScorerContext:
    """What a run provides to its scorer.

    Attributes:
        settings: the section `ppo.scorer`.
        check: called a few times a second while a scorer waits; may raise to end the wait.
        reward_model: the shared base with the adapter and head of the run's reward model; None where no run is open.
        directory: the run; None where none is open.
        max_tokens: most tokens in one forward pass.
        setting: the section's name, for messages.
        prompts: some of the run's prompts, for a look before the first step; none where they cannot be read.
        is_part: whether it scores a part of a sum.
        begins: whether what it scores first is the first rollout, unless the run has more.
        lent: a Python object that scores, where the program that began the run has one.
        place_of: where a model is that an adapter names as its base (an embedded name is no place).
        strategy: the processes that share the reward model's work.
    """

    settings: ScorerSettings
    check: Callable[[], None] = lambda: None
    reward_model: "Callable[[], SharedModel] | None" = None
    directory: Path | None = None
    max_tokens: int | None = None
    setting: str = "ppo.scorer"
    prompts: Sequence[Prompt] = ()
    is_part: bool = False
    begins: bool = False
    lent: Callable[..., Any] | None = None
    place_of: Callable[[str, Path | None], str] = lambda name, adapter: name
    strategy: Strategy = ALONE


_PROBE = Prompt("probe", (Message("user", "What is the capital of France?"),))


def probe_of(prompts: Sequence[Prompt]) -> list[Answer]:
    """Two answers to try a scorer on, to the first of these prompts."""
    first, second = (*prompts[:2], *prompts[:1], _PROBE, _PROBE)[:2]
    return [Answer(first, "Paris.", True), Answer(second, "I do not know; perhaps", False)]
