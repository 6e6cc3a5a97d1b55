"""What the reward model's phase carries besides its weights: the fit of the score head alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from triphase.training.state import PhaseState

_HELDOUT = "reward/"


@dataclass(frozen=True)
class HeadFit:
    """The score head, fitted alone before the adapter is trained.

    Attributes:
        penalty: weight of the squared norm.
        loss: cross-validated loss at that penalty; None if it was given, or could not be chosen.
        curve: (penalty, cross-validated loss) of each candidate; None if the penalty was given.
        heldout: metrics of the head alone on held-out rankings.
        cross_fits: for each fold of the training prompts, weight and bias of the fit to the other folds, less the
            head's (`phases/cross_fit.py`); None in a checkpoint of a version that had none.
    """

    penalty: float
    loss: float | None = None
    curve: list[list[float]] | None = None
    heldout: dict[str, float] = field(default_factory=dict)
    cross_fits: list[list[float]] | None = None

    def as_json(self) -> dict[str, Any]:
        """As stored in a checkpoint."""
        return self.summary() | ({} if self.cross_fits is None else {"cross_fits": self.cross_fits})

    def summary(self) -> dict[str, Any]:
        """As in reward/head.json: without the cross-fits, which are as long as the model is wide."""
        chosen = {} if self.curve is None else {"loss": self.loss, "curve": self.curve}
        return {"penalty": self.penalty, **chosen, **self.heldout}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``."""
        heldout = {name: value for name, value in values.items() if name.startswith(_HELDOUT)}
        return cls(values["penalty"], values.get("loss"), values.get("curve"), heldout, values.get("cross_fits"))

    def metrics(self) -> dict[str, float]:
        """The results of the fit, for the metrics of the first step."""
        found = {"reward/head_penalty": self.penalty}
        if self.loss is not None:
            found["reward/head_loss"] = self.loss
        return found | {f"reward/head_{name.removeprefix(_HELDOUT)}": value for name, value in self.heldout.items()}


@dataclass
class RewardState(PhaseState):
    """Values of the reward model's phase.

    Attributes:
        head: None if the head is not fitted alone, or not yet.
    """

    head: HeadFit | None = None

    def as_json(self) -> dict[str, Any]:
        """The values by name, as stored in a checkpoint."""
        return super().as_json() | ({} if self.head is None else {"head": self.head.as_json()})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``."""
        read = super().from_json(values)
        read.head = HeadFit.from_json(values["head"]) if "head" in values else None
        return read
