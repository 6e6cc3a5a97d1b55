"""What PPO does at an alarm: continue, stop, or roll back to earlier weights and continue more carefully.

A rollback restores the weights and Adam's moments of a kept checkpoint. Counters, data order and seeds go forward, so
the metrics keep every iteration, the discarded ones included. After a rollback the alarms are judged on the start of
the run and on the iterations after it, not on those that were discarded.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from triphase.monitoring.alarms import WINDOW, Alarm, Limits, find_alarms, shown_samples
from triphase.monitoring.composite_rules import named_by, peaks
from triphase.monitoring.glossary import METRICS
from triphase.monitoring.metrics import without_nonfinite
from triphase.objectives.checkpoint_value import LEAST_KL_PRICE
from triphase.phases.ppo_state import PPOState
from triphase.records.visible import visible
from triphase.settings.guards import GuardSettings
from triphase.settings.ppo import PPOSettings
from triphase.training.checkpoint import load_checkpoint
from triphase.training.checkpoint_places import whole_steps
from triphase.training.distributed.types import ALONE, Strategy
from triphase.training.loop import Judged
from triphase.training.state import TrainingState

_LONGEST_SHOWN = 160
_log = logging.getLogger(__name__)
Rows = Sequence[Mapping[str, Any]]


def judge_by(name: str, position: int, metrics: Mapping[str, float]) -> Judged:
    """Judges a step by one of its metrics, if present, in the direction that is declared as better."""
    if name not in metrics:
        return None
    return position, metrics[name] if METRICS[name].better == "higher" else -metrics[name]


def judge_rollout(position: int, metrics: Mapping[str, float], unit: float | None = None) -> Judged:
    """Judges a PPO iteration by score − price · KL. ``unit`` is a standard deviation of the scores, if known.

    The price is the effective coefficient, and at least `LEAST_KL_PRICE` units: the score alone never peaks, since PPO
    raises it. If there is a witness, it is the mean of that, in units, and of the witness's score less the coefficient
    itself · KL: the witness has deviation 1, whatever the scorer's scores are divided by. PPO does not see the witness,
    but errors that both models have learned raise both.

    It is measured on the rollout, so it judges the weights that sampled it: those from before the iteration's updates,
    or older ones, sampled ahead. The gold score is not used: no real run has one, and it could not measure weights that
    were chosen by it.
    """
    needed = ("ppo/proxy_score", "ppo/kl_coefficient", "ppo/reference_kl")
    if any(name not in metrics for name in needed):
        return None
    score, coefficient, kl = (metrics[name] for name in needed)
    judged = position - 1 - int(metrics.get("ppo/staleness", 0.0))
    price = max(metrics.get("ppo/effective_kl_coefficient", coefficient), LEAST_KL_PRICE * (unit or 0.0))
    own = score - price * kl
    if "ppo/witness_score" in metrics:
        return judged, (own / (unit or 1.0) + metrics["ppo/witness_score"] - coefficient * kl) / 2
    return judged, own


class AlarmGuard:
    """Checks the alarms of a PPO run, and acts on them.

    Attributes:
        keep: checkpoints that must be kept for a rollback; 0 if the guard is inactive.
    """

    def __init__(
        self,
        settings: GuardSettings,
        limits: Limits,
        history: Callable[[], Rows],
        checkpoints: Path,
        *,
        samples: Callable[[int], Rows] = lambda _: (),
        strategy: Strategy = ALONE,
    ) -> None:
        """``history`` returns the metrics of the iterations so far; rank 0 calls it once, at the first iteration, and
        decides which checkpoint to go back to. Every rank judges the same metrics. ``samples`` returns the responses of
        an iteration (from 1), which a warning shows."""
        self._strategy = strategy
        self._settings = settings
        self._limits = limits
        self._history = history
        self._checkpoints = checkpoints
        self._samples = samples
        self._rows: list[Mapping[str, Any]] | None = None
        self._noted: set[str] = set()
        self.keep = 0 if settings.on_alarm == "continue" else settings.back + 1

    def check_alarms(
        self, state: TrainingState[PPOState], iteration: int, metrics: Mapping[str, float]
    ) -> Alarm | None:
        """Judge the iteration (from 1) that is being finished, and act on the state; returns the alarm, if any."""
        if self._rows is None:
            past = self._strategy.from_lead(lambda: [dict(row) for row in self._history()])
            self._rows = list(past)
        # Rows of this and later iterations are from before the phase went back to a checkpoint.
        self._rows = [row for row in self._rows if row["step"] < iteration]
        self._rows.append({"step": iteration, **without_nonfinite(metrics)})
        rollbacks = list(state.values.rollbacks)
        rows = [row for row in self._rows if row["step"] <= WINDOW or row["step"] > max(rollbacks, default=0)]
        alarms = find_alarms(rows, self._limits)
        # The report knows the discarded iterations too, and names what was the best when its alarm was first raised.
        told = [*alarms, *(find_alarms(self._rows, self._limits) if rollbacks else ())]
        if named := {*peaks(self._rows), *peaks(rows), *(step for alarm in told if (step := named_by(alarm.numbers)))}:
            state.values.named = sorted(named)
        found = [alarm for alarm in alarms if alarm.lasting]
        for alarm in found:
            if alarm.name not in self._noted:
                self._noted.add(alarm.name)
                _log.warning("%s", alarm.line())
                self._show(iteration)
        listed = [alarm for alarm in found if alarm.name in self._settings.alarms]
        # A discarded start stays in the rows as the baseline; it raises no alarm by itself.
        listed = [alarm for alarm in listed if iteration > max(rollbacks, default=0)]
        if not listed or self._settings.on_alarm == "continue":
            return None
        self._act(state, iteration, listed[0], rollbacks)
        return listed[0]

    def _show(self, iteration: int) -> None:
        for each in shown_samples(self._samples(iteration)) if self._strategy.is_lead else ():
            _log.warning("  score %.3g: %s", each["score"], _cut(each["response"]))

    def _act(self, state: TrainingState[PPOState], iteration: int, alarm: Alarm, rollbacks: list[int]) -> None:
        chosen = self._settings.on_alarm
        if len(rollbacks) >= self._settings.rollbacks:
            chosen = "stop"
        if chosen not in ("lower-learning-rate", "raise-kl-coefficient"):
            step = self._strategy.from_lead(lambda: self._step_of(chosen, state, iteration))
            if step is None:
                state.values.finished = (
                    f"alarm {alarm.name} at iteration {iteration}, but there is no checkpoint to return to"
                )
                return
            tensors = load_checkpoint(self._checkpoints, step).tensors
            state.load_tensors(tensors)
            if chosen == "stop":
                state.values.finished = (
                    f"alarm {alarm.name} at iteration {iteration}: {alarm.message} "
                    f"The weights are those after iteration {step}"
                )
                _log.warning("PPO stops: %s", state.values.finished)
                return
            told = f"PPO returns to the weights after iteration {step}"
            if step > 0 and not any(name.startswith("exp_avg.") for name in tensors):
                told += ", from before it was extended, and to Adam's moments as at a start"
        else:
            told = "PPO continues from its weights"
        state.values.rollbacks = [*rollbacks, iteration]
        if chosen != "lower-learning-rate":
            coefficient = state.values.kl_coefficient or PPOSettings().kl_coefficient
            state.values.kl_coefficient = self._settings.kl_coefficient_factor * coefficient
        if chosen != "raise-kl-coefficient":
            state.updater.rate_scale *= self._settings.learning_rate_factor
        _log.warning(
            "%s (alarm %s at %d); learning rates × %g, KL coefficient %g",
            *(told, alarm.name, iteration, state.updater.rate_scale, state.values.kl_coefficient),
        )

    def _step_of(self, chosen: str, state: TrainingState[PPOState], iteration: int) -> int | None:
        """The checkpoint to go back to."""
        return self._best_step(state, iteration) if chosen == "rollback-to-best" else self._sound_step(iteration)

    def _best_step(self, state: TrainingState[PPOState], iteration: int) -> int | None:
        """The best judged checkpoint from before the alarm; the newest sound one if none was judged."""
        before = [
            step
            for step in whole_steps(self._checkpoints)
            if step in state.scores and step <= iteration - self._settings.back
        ]
        if not before:
            return self._sound_step(iteration)
        return max(before, key=lambda step: (state.scores[step], -step))

    def _sound_step(self, iteration: int) -> int | None:
        """The newest kept checkpoint that is at least ``back`` iterations old; the oldest if none is."""
        oldest: int | None = None
        for oldest in whole_steps(self._checkpoints):
            if oldest <= iteration - self._settings.back:
                break
        return oldest


def _cut(text: str) -> str:
    """A response in one line of the terminal."""
    line = visible(" ".join(text.split())) or "(empty)"
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}…"
