"""Input and output of a scorer. Plain numbers, so that a scorer needs no torch."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from triphase.records.types import Message, Prompt
from triphase.settings.scorer import ScorerSettings
from triphase.tokens.encoding import Encoded
from triphase.training.distributed.types import ALONE, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from triphase.batches.sharing import Batch
    from triphase.models.roles import SharedModel

    Part = tuple[list[int], Batch, Tensor]
    """Numbers for some answers, from their batch and the states of the shared trunk for it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The input of a scorer: a response to a prompt, and whether its end was sampled.

    ``sample`` has the token ids of both if they are known; a scorer of text does not need them.
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
        parts: the microbatches with their states, in a fresh iteration at each call. Only a scorer on the same base can
            use them; it then need not recompute the trunk.
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
        total: (N,) the optimized score. NaN if the scorer has no score; such a rollout is skipped, not trained on.
        parts: (N,) each, by name: the components of the total, for display. NaN if a part is unknown.
        monitors: (N,) each, by the name of its metric (`ppo/NAME`): values reported with the total, not part of it.
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
    """Anything that scores responses. A custom class inherits from this one and implements `score`.

    Attributes:
        name: its name in messages.
        calibrated: whether scores of the SFT policy's samples have mean 0 and standard deviation 1, as with a reward
            model; for any other scorer the scale is that of the first rollout.
        may_abstain: whether NaN means no opinion, which counts nothing within a sum; otherwise it is no score.
    """

    name: str = "scorer"
    calibrated: bool = False
    may_abstain: bool = False

    def score(self, answers: Sequence[Answer]) -> Scores:
        """One score for each answer, in order, independent of the rest of the batch.

        Raises:
            TriphaseError: there is none; one line that says where and what to do.
        """
        ...

    def examine(self) -> None:
        """Checks before the first step of a run.

        Raises:
            TriphaseError: it cannot score.
        """
        return

    def notes(self) -> Sequence[str]:
        """What the user should know before the first step of a run, a line each."""
        return ()

    def require_columns(self, columns: Sequence[str]) -> None:
        """Check that the prompts' records have the columns that it needs.

        Raises:
            SettingsError: one that it needs is missing.
        """
        return

    def close(self) -> None:
        """Release its resources."""
        return


@dataclass(frozen=True, slots=True)
class ScorerContext:
    """What a run provides to its scorer.

    Attributes:
        settings: the section `ppo.scorer`.
        check: called a few times a second while a scorer waits; may raise to end the wait.
        reward_model: the shared base with the adapter and head of the run's reward model; None if no run is open.
        directory: the run's directory; None if none is open.
        max_tokens: maximum tokens in one forward pass.
        device: where a model of its own runs (`model.device`).
        setting: the section's name, for messages.
        prompts: some of the run's prompts, for a check before the first step; empty if they cannot be read.
        is_part: whether it scores a part of a sum.
        begins: whether its first scores are of the first rollout, unless the run has more.
        scorer_object: a Python object that scores, if the program that started the run has one.
        place_of: the location of a model that an adapter names as its base (an embedded name is not a location).
        strategy: the processes that share the reward model's work.
    """

    settings: ScorerSettings
    check: Callable[[], None] = lambda: None
    reward_model: "Callable[[], SharedModel] | None" = None
    directory: Path | None = None
    max_tokens: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    setting: str = "ppo.scorer"
    prompts: Sequence[Prompt] = ()
    is_part: bool = False
    begins: bool = False
    scorer_object: Callable[..., Any] | None = None
    place_of: Callable[[str, Path | None], str] = lambda name, adapter: name
    strategy: Strategy = ALONE


_PROBE = Prompt("probe", (Message("user", "What is the capital of France?"),))


def probe_of(prompts: Sequence[Prompt]) -> list[Answer]:
    """Two answers for a trial of a scorer, to the first of these prompts."""
    first, second = (*prompts[:2], *prompts[:1], _PROBE, _PROBE)[:2]
    return [Answer(first, "Paris.", True), Answer(second, "I do not know; perhaps", False)]
