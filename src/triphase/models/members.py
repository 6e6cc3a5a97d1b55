"""The reward models of one run: one, or an ensemble on the shared base, and a witness that is never optimized.

Each is an adapter with a score head. All read the same trunk states, so another member costs only the adapted layers.
Members are calibrated individually before they are combined: the Bradley–Terry loss leaves the offset of each free, and
the worst of them would mean nothing. The combined score is calibrated once more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from triphase.models.heads import ScoreHead
from triphase.objectives.ensembles import combine_scores, member_deviation

WITNESS = "witness"
"""The adapter of the witness."""


@dataclass(frozen=True, slots=True)
class RewardMember:
    """One reward model: the name of its adapter, and its head."""

    adapter: str
    head: ScoreHead


@dataclass(frozen=True, slots=True)
class Combination:
    """How the scores of members are combined.

    Attributes:
        combine, penalty: see `combine_scores`.
        center, scale: mean and deviation of the combined scores of the reference samples.
        disagreement: mean deviation of the members on these samples.
    """

    combine: str
    penalty: float
    center: float = 0.0
    scale: float = 1.0
    disagreement: float = 1.0

    def as_json(self) -> dict[str, Any]:
        """As stored next to the members."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``."""
        return cls(**{name: values[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Several reward models whose scores are combined."""

    members: tuple[RewardMember, ...]
    combination: Combination

    def total(self, scores: Tensor) -> Tensor:
        """(M, N) scores of the members → (N,) combined and calibrated."""
        how = self.combination
        return (combine_scores(scores, how.combine, penalty=how.penalty) - how.center) / how.scale

    def disagreement(self, scores: Tensor) -> Tensor:
        """(M, N) scores of the members → (N,) their deviation, as a multiple of its mean on the reference samples."""
        return member_deviation(scores) / self.combination.disagreement


@dataclass(frozen=True, slots=True)
class LengthResidual:
    """The score without the part that length explains: (r − slope · tokens − center) / scale.

    Attributes:
        slope: the effect of one more token among the responses to one prompt, in the unit of r.
        center, scale: mean and deviation of r − slope · tokens over the reference samples.
    """

    slope: float
    center: float = 0.0
    scale: float = 1.0

    def of(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """(N,) scores of responses of these lengths."""
        return (scores - self.slope * lengths - self.center) / self.scale


def member_adapter(first: str, number: int) -> str:
    """The adapter of the member with this number, from 0; the first uses the reward model's own."""
    return first if number == 0 else f"{first}-{number + 1}"
