"""The whole state of a phase, in one place.

There is no other state: random numbers come from seeds that are derived for each purpose and index, so no generator has
a state, and data order follows from the step. A phase that is stopped and restarted therefore continues with the same
bytes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from torch import Tensor

from triphase.errors import RunError
from triphase.training.checkpoint import (
    UNTRAINED,
    Checkpoint,
    best_of,
    load_checkpoint,
    newest_whole,
    save_checkpoint,
)
from triphase.training.checkpoint_places import kept_steps, place_of
from triphase.training.step import Updater

FINGERPRINTED = 3
"""Steps at the start of a phase whose weights get a checksum."""


@dataclass
class PhaseState:
    """The plain values of a phase that a checkpoint stores; a phase with controllers adds fields to these.

    Attributes:
        finished: why the phase ended before its last step; None if it did not.
        named: the steps that a message names or may name; their checkpoints stay.
        halved: the maximum tokens of a pass as set, and as halved after out-of-memory errors; empty without one.
    """

    finished: str | None = None
    named: list[int] = field(default_factory=list)
    halved: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The values by name, as stored in a checkpoint: those that are not set yet are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None and value != []}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``.

        Raises:
            ValueError: a value has a name that this version does not know.
        """
        unknown = sorted(values.keys() - {each.name for each in fields(cls)})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: unknown to this version")
        return cls(**values)


Values = TypeVar("Values", bound=PhaseState)


@dataclass(slots=True)
class TrainingState(Generic[Values]):
    """Counters, plain values and the trained tensors of one phase.

    Attributes:
        updater: the trained parameters with their optimizer.
        position: number of completed steps (SFT, reward) or iterations (PPO).
        values: controllers and running values.
        scores: how good the weights were after each judged step; higher is better.
        fingerprints: a checksum of the trained weights after each of the first steps, to tell whether a run repeats.
        untrained: tensors that a checkpoint stores besides the trained ones, by names of their own.
    """

    updater: Updater
    values: Values
    position: int = 0
    scores: dict[int, float] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    untrained: dict[str, Tensor] = field(default_factory=dict)

    def save(self, parent: Path, *, keep: int, keep_best: int = 0, trained: Mapping[str, Tensor] | None = None) -> None:
        """Write a checkpoint; the newest ``keep`` stay, and the ``keep_best`` of the highest score.

        ``trained`` is what `Updater.tensors` returns, if all ranks have called it.
        """
        now, best = self.as_checkpoint(trained), best_of(self.scores, {*kept_steps(parent), self.position})
        spare = {*best[:keep_best], *self.values.named}
        save_checkpoint(parent, now.step, now.tensors, now.values, keep=keep, spare=spare)

    def as_checkpoint(self, trained: Mapping[str, Tensor] | None = None) -> Checkpoint:
        """The contents of a checkpoint of now; its tensors are the trained ones themselves."""
        values = {
            "position": self.position,
            "step_count": self.updater.step_count,
            "skipped_in_a_row": self.updater.skipped_in_a_row,
            "rate_scale": self.updater.rate_scale,
            "scores": {str(step): score for step, score in self.scores.items()},
            "fingerprints": self.fingerprints,
            "values": self.values.as_json(),
        }
        tensors = dict(self.updater.tensors() if trained is None else trained) | {
            f"{UNTRAINED}{name}": value for name, value in self.untrained.items()
        }
        return Checkpoint(self.position, tensors, values)

    def resume(self, parent: Path) -> bool:
        """Resume from the newest intact checkpoint, if any: every rank from the one that rank 0 chooses.

        Raises:
            RunError: it contains values that this version does not know.
        """
        step = self.updater.strategy.from_lead(lambda: newest_whole(parent))
        if step is None:
            return False
        self.continue_from(load_checkpoint(parent, step), place_of(parent, step))
        return True

    def continue_from(self, checkpoint: Checkpoint, path: Path) -> None:
        """Take over the contents of a checkpoint, which an error names by its ``path``.

        Raises:
            RunError: it contains values that this version does not know.
        """
        self.values = self._read(checkpoint.values["values"], path)
        self.load_tensors(checkpoint.tensors)
        self.updater.step_count = checkpoint.values["step_count"]
        self.updater.skipped_in_a_row = checkpoint.values["skipped_in_a_row"]
        self.updater.rate_scale = checkpoint.values.get("rate_scale", 1.0)
        self.position = checkpoint.values["position"]
        self.scores = {int(step): score for step, score in checkpoint.values.get("scores", {}).items()}
        self.fingerprints = checkpoint.values.get("fingerprints", {})

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors of a checkpoint: the trained ones, and those stored with them."""
        self.updater.load_tensors(tensors)
        kept = {name: value for name, value in tensors.items() if name.startswith(UNTRAINED)}
        self.untrained = {name.removeprefix(UNTRAINED): value for name, value in kept.items()}

    def _read(self, values: Mapping[str, Any], path: Path) -> Values:
        try:
            return type(self.values).from_json(values)
        except ValueError as error:
            raise RunError(
                f"checkpoint {path}: {error}; continue with the version of triphase that the run's config.yaml names "
                "under versions, or start a new run (--name)"
            ) from None

    def note_fingerprint(self) -> None:
        """Store the checksum of the trained weights, while the phase is at its first steps."""
        if self.position <= FINGERPRINTED:
            self.fingerprints[str(self.position)] = self.updater.digest()
