"""What is not finite is skipped, counted and kept; alarms stop PPO or send it back to weights from before them."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.small import Lines, samples, shared_model
from torch import nn

from triphase.errors import TrainingError
from triphase.monitoring.alarms import Limits, find_alarms
from triphase.phases import guards
from triphase.phases.guards import AlarmGuard, _cut, judge_by, judge_rollout
from triphase.phases.ppo_state import PPOState
from triphase.phases.sft import SupervisedPhase
from triphase.settings.guards import GuardSettings
from triphase.settings.phases import OptimizerSettings, SupervisedSettings
from triphase.settings.ppo import PPOSettings
from triphase.training.checkpoint import PARAMETER, Checkpoint, load_checkpoint
from triphase.training.checkpoint_places import CHECKPOINTS, kept_steps
from triphase.training.loop import Judged, LoopOptions, Phase, run_loop
from triphase.training.state import PhaseState, TrainingState
from triphase.training.step import Updater


def updater(value: float = 1.0) -> Updater:
    weights = {name: nn.Parameter(torch.full((3,), value)) for name in ("a", "b")}
    return Updater(weights, {}, OptimizerSettings(learning_rate=0.1, schedule="constant"), total_steps=100)


def give_gradient(made: Updater, value: float) -> None:
    for parameter in made.parameters.values():
        parameter.grad = torch.ones(3)
    made.parameters["b"].grad = torch.tensor([1.0, value, 1.0])


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_named() -> None:
    made = updater()
    give_gradient(made, math.nan)
    result = made.step()
    assert result.skipped and "b" in " ".join(result.nonfinite) and "a" not in result.nonfinite
    assert all(bool((parameter == 1).all()) for parameter in made.parameters.values())
    give_gradient(made, 1.0)
    assert not made.step().skipped
    assert made.skipped_in_a_row == 0


def test_too_many_in_a_row_stop_and_say_what_to_try() -> None:
    made = updater()
    made.most_skipped_in_a_row = 3
    for _ in range(2):
        give_gradient(made, math.inf)
        made.step()
    give_gradient(made, math.inf)
    with pytest.raises(TrainingError, match=r"b.*3 steps in a row.*learning_rate"):
        made.step()


def supervised(directory: Path, **settings: object) -> tuple[SupervisedPhase, Lines]:
    made = samples(16)
    phase = SupervisedPhase(
        shared_model(), made, list(range(16)), made[:4], SupervisedSettings(batch_size=4, **settings)
    )
    return phase, Lines()


def test_a_batch_whose_loss_is_not_finite_is_kept_for_inspection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase, lines = supervised(tmp_path)
    whole = phase._loss  # the second batch is broken, whichever other batches and held-out looks come before it
    monkeypatch.setattr(
        phase, "_loss", lambda indices, tokens: whole(indices, tokens) * (math.nan if 4 in indices else 1.0)
    )
    run_loop(phase, LoopOptions(tmp_path, lines, keep=9, every=1))
    assert [row["sft/skipped_steps"] for row in lines.rows.values()] == [0.0, 1.0, 0.0, 0.0]
    kept = sorted(path.name for path in (tmp_path / "bad").iterdir())
    assert kept == ["000002.json", "000002.safetensors"]
    facts = json.loads((tmp_path / "bad" / "000002.json").read_text())
    assert facts["samples"] == [4, 5, 6, 7] and facts["loss"] == "nan" and facts["nonfinite"]
    assert load_file(tmp_path / "bad" / "000002.safetensors")["input_ids"].shape[0] == 4


def test_losses_that_stay_broken_stop_at_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase, lines = supervised(tmp_path)
    whole, calls = phase._loss, iter(range(99))
    monkeypatch.setattr(phase, "_loss", lambda *given: whole(*given) * (1.0 if next(calls) < 1 else math.nan))
    with pytest.raises(TrainingError, match=r"loss.*2 steps in a row"):
        run_loop(phase, LoopOptions(tmp_path, lines, keep=9, every=1, skipped_in_a_row=2))
    assert max(kept_steps(tmp_path / "checkpoints")) >= 1


@pytest.mark.parametrize("broken", [4, 3])
def test_a_phase_that_skips_all_its_steps_fails_and_one_that_skips_some_says_so(
    broken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    phase, lines = supervised(tmp_path, epochs=1)
    assert phase.total_steps == 4
    updates = iter(range(99))
    monkeypatch.setattr(phase.state.updater, "step", lambda whole=phase.state.updater.step: (
        phase.state.updater.skip_step(["the loss"]) if next(updates) < broken else whole()
    ))  # fmt: skip
    with caplog.at_level("WARNING", "triphase"):
        if broken == 4:
            with pytest.raises(TrainingError, match="the loss: not finite 4 steps in a row"):
                run_loop(phase, LoopOptions(tmp_path, lines, keep=9, every=1))
        else:
            run_loop(phase, LoopOptions(tmp_path, lines, keep=9, every=1))
    said = [record.getMessage() for record in caplog.records if "the loss" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith("the loss: not finite. This step changed nothing, and is counted.")


def scored(directory: Path, losses: list[float | None], *, keep: int, keep_best: int) -> list[int]:
    class Scored(Phase):
        state, total_steps = TrainingState(updater(), PhaseState()), len(losses)

        def advance(self, step: int) -> dict[str, float]:
            loss = losses[step]
            return {} if loss is None else {"sft/heldout_loss": loss}

        def judge(self, position: int, metrics: Mapping[str, float]) -> Judged:
            return judge_by("sft/heldout_loss", position, metrics)

    run_loop(Scored(), LoopOptions(directory, Lines(), keep=keep, keep_best=keep_best))
    return kept_steps(directory / CHECKPOINTS)


def test_the_newest_stay_and_the_best(tmp_path: Path) -> None:
    losses = [3.0, 1.0, 2.0, 1.5, None, 4.0]
    assert scored(tmp_path / "a", losses, keep=2, keep_best=0) == [5, 6]
    assert scored(tmp_path / "b", losses, keep=2, keep_best=1) == [2, 5, 6]
    assert scored(tmp_path / "c", losses, keep=1, keep_best=2) == [2, 4, 6]
    assert scored(tmp_path / "d", [math.nan] * 4, keep=1, keep_best=1) == [4]


def test_a_rollout_judges_the_weights_from_before_its_updates() -> None:
    metrics = {"ppo/proxy_score": 2.0, "ppo/kl_coefficient": 0.1, "ppo/reference_kl": 5.0}
    assert judge_rollout(7, metrics) == (6, 1.5)
    assert judge_rollout(7, {"ppo/skipped_steps": 1.0}) is None


def test_a_checkpoint_pays_for_its_divergence_also_without_a_penalty() -> None:
    """A tenth of a deviation a nat, at least; the witness, which PPO does not see, has the price that PPO pays."""
    free = {"ppo/proxy_score": 2.0, "ppo/kl_coefficient": 0.0, "ppo/reference_kl": 5.0}
    assert judge_rollout(7, free, 2.0) == (6, 1.0)
    assert judge_rollout(7, free) == (6, 2.0)  # the unit of the scores is not known
    assert judge_rollout(7, free | {"ppo/kl_coefficient": 0.3}, 1.0) == (6, 0.5)
    assert judge_rollout(7, free | {"ppo/witness_score": 0.7}, 2.0) == (6, pytest.approx(0.5 * (0.5 + 0.7)))
    # Its deviation is 1, whatever the scores of the scorer are divided by.
    paid = free | {"ppo/kl_coefficient": 0.1, "ppo/effective_kl_coefficient": 0.4}
    assert judge_rollout(7, paid, 2.0) == (6, 0.0)
    assert judge_rollout(7, paid | {"ppo/witness_score": 1.0}, 2.0) == (6, pytest.approx(0.5 * (0.0 + 0.5)))


class Descent(Phase):
    """A run whose weights count its steps and whose entropy collapses from an iteration on."""

    def __init__(self, directory: Path, settings: GuardSettings, collapse: int, until: int = 99) -> None:
        self.state = TrainingState(updater(0.0), PPOState(kl_coefficient=0.1))
        self.directory, self.collapse, self.until = directory, collapse, until
        self.rows: dict[int, dict[str, float]] = {}
        self.guard = AlarmGuard(settings, Limits(), lambda: [], directory / CHECKPOINTS)

    def advance(self, step: int) -> dict[str, float]:
        with torch.no_grad():
            for parameter in self.state.updater.parameters.values():
                parameter += 1
                parameter.grad = torch.zeros_like(parameter)
        self.state.updater.step()  # Adam has moments from the first step on; the learning rate is 0
        metrics = {"ppo/entropy": 0.1 if self.collapse <= step + 1 < self.until else 2.0}
        self.guard.check_alarms(self.state, step + 1, metrics)
        return metrics

    def run(self, total: int) -> float:
        """The weight at the end: how many steps its weights have seen."""
        self.total_steps = total
        keep = max(1, self.guard.keep)
        run_loop(self, LoopOptions(self.directory, Lines(), keep=keep, save_start=self.guard.keep > 0))
        return float(self.state.updater.parameters["a"].detach()[0])


def test_by_default_an_alarm_changes_nothing(tmp_path: Path) -> None:
    assert Descent(tmp_path, GuardSettings(), collapse=6).run(12) == 12


def test_stop_ends_with_the_weights_from_before_the_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Descent(tmp_path, GuardSettings(on_alarm="stop"), collapse=6)
    weight = made.run(20)
    assert "entropy-collapse" in made.state.values.finished
    assert f"PPO stops: {made.state.values.finished}" in caplog.text
    stopped = made.state.position
    assert stopped in (7, 8)
    assert weight == stopped - 3 < 6


def test_rollback_goes_on_from_them_more_carefully_and_then_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = GuardSettings(on_alarm="rollback", rollbacks=1)
    made = Descent(tmp_path / "a", settings, collapse=6, until=9)
    assert made.run(14) < 14
    assert "PPO returns to the weights after iteration" in caplog.text and "before it was extended" not in caplog.text
    assert len(made.state.values.rollbacks) == 1 and made.state.values.finished is None
    assert made.state.updater.rate_scale == 0.5 and made.state.values.kl_coefficient == 0.2
    Descent(tmp_path / "c", settings.model_copy(update={"back": 10}), collapse=6, until=9).run(14)
    assert "after iteration 0 (alarm" in caplog.text  # the start has no moments, and no extension made it so
    lasting = Descent(tmp_path / "b", settings, collapse=6)
    lasting.run(30)
    assert len(lasting.state.values.rollbacks) == 1 and "entropy-collapse" in lasting.state.values.finished


def test_a_rollback_to_weights_from_before_an_extension_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their checkpoint has no moments of Adam."""

    def without_moments(parent: Path, step: int) -> Checkpoint:
        found = load_checkpoint(parent, step)
        return replace(
            found, tensors={name: found.tensors[name] for name in found.tensors if name.startswith(PARAMETER)}
        )

    monkeypatch.setattr(guards, "load_checkpoint", without_moments)
    Descent(tmp_path, GuardSettings(on_alarm="rollback", rollbacks=1), collapse=6, until=9).run(14)
    assert ", from before it was extended, and to Adam's moments as at a start (alarm entropy-collapse" in caplog.text


def test_after_several_rollbacks_only_the_rows_after_the_last_one_count(tmp_path: Path) -> None:
    """What collapsed between two rollbacks and has recovered since raises no alarm again."""
    made = Descent(tmp_path, GuardSettings(on_alarm="lower-learning-rate", rollbacks=3), collapse=99)
    made.state.values.rollbacks = [4, 12]
    made.guard = AlarmGuard(
        made.guard._settings,
        Limits(),
        lambda: [{"step": step, "ppo/entropy": 0.1 if 5 <= step <= 12 else 2.0} for step in range(1, 13)],
        tmp_path / CHECKPOINTS,
    )
    for iteration in (13, 14):
        assert made.guard.check_alarms(made.state, iteration, {"ppo/entropy": 0.1}) is None
    assert made.guard.check_alarms(made.state, 15, {"ppo/entropy": 2.0}) is None
    assert made.state.values.rollbacks == [4, 12]


@pytest.mark.parametrize(
    ("action", "rate", "coefficient"), [("lower-learning-rate", 0.5, 0.1), ("raise-kl-coefficient", 1.0, 0.2)]
)
def test_a_milder_action_goes_on_from_its_weights_and_then_stops(
    tmp_path: Path, action: str, rate: float, coefficient: float
) -> None:
    settings = GuardSettings(on_alarm=action, rollbacks=1)
    made = Descent(tmp_path / "a", settings, collapse=6, until=9)
    assert made.run(14) == 14  # no step is lost
    assert made.state.values.finished is None and len(made.state.values.rollbacks) == 1
    assert (made.state.updater.rate_scale, made.state.values.kl_coefficient) == (rate, coefficient)
    lasting = Descent(tmp_path / "b", settings, collapse=6)
    lasting.run(30)
    assert "entropy-collapse" in lasting.state.values.finished


def test_a_coefficient_of_0_is_raised_to_something(tmp_path: Path) -> None:
    made = Descent(tmp_path, GuardSettings(on_alarm="raise-kl-coefficient"), collapse=6, until=9)
    made.state.values.kl_coefficient = 0.0
    made.run(12)
    assert made.state.values.kl_coefficient == 2 * PPOSettings().kl_coefficient > 0


def test_rollback_to_the_best_takes_the_best_judged_weights_before_the_alarm(tmp_path: Path) -> None:
    settings = GuardSettings(on_alarm="rollback-to-best", back=2, rollbacks=1)
    made = Descent(tmp_path, settings, collapse=8, until=11)
    scores = {3: 9.0, **dict.fromkeys(range(9, 13), 99.0)}
    made.judge = lambda position, metrics: (position, scores.get(position, float(position)))
    made.total_steps = 12
    run_loop(made, LoopOptions(tmp_path, Lines(), keep=9, keep_best=2, save_start=True))
    (at,) = made.state.values.rollbacks
    weight = float(made.state.updater.parameters["a"].detach()[0])
    assert weight == 3 + (12 - at)  # those after iteration 3, and the steps since; the 99 came with the collapse
    assert made.state.updater.rate_scale == 0.5 and made.state.values.kl_coefficient == 0.2


def test_the_best_is_looked_for_up_to_the_iteration_that_is_so_far_back(tmp_path: Path) -> None:
    guard = AlarmGuard(GuardSettings(on_alarm="rollback-to-best", back=2), Limits(), lambda: [], tmp_path)
    state = TrainingState(updater(), PPOState())
    for position in range(1, 7):
        state.position = position
        state.save(tmp_path, keep=9)
    state.scores = {3: 1.0, 4: 5.0, 5: 9.0}
    assert [guard._best_step(state, iteration) for iteration in (5, 6, 7)] == [3, 4, 5]
    assert [guard._sound_step(iteration) for iteration in (2, 3, 5, 6, 20)] == [1, 1, 3, 4, 6]  # the newest of those


def test_an_alarm_that_is_not_listed_is_not_heeded(tmp_path: Path) -> None:
    settings = GuardSettings(on_alarm="stop", alarms=("reference-kl",))
    assert Descent(tmp_path, settings, collapse=6).run(12) == 12


def test_the_checkpoint_that_an_alarm_names_is_kept(tmp_path: Path) -> None:
    """Gold rises to iteration 6 and falls: the iteration that `proxy-without-gold` names is there at the end."""
    guard, rows = AlarmGuard(GuardSettings(), Limits(), lambda: [], tmp_path), []
    state = TrainingState(updater(), PPOState())
    for iteration in range(1, 21):
        gold = 1.0 - 0.15 * abs(iteration - 6)
        row = {"ppo/gold_score": gold, "ppo/proxy_score": 0.2 * iteration, "ppo/episodes": 64.0 * iteration}
        guard.check_alarms(state, iteration, row)
        rows.append({"step": iteration, **row})
        state.position = iteration
        state.save(tmp_path, keep=2)
    said = [alarm.remedy for alarm in find_alarms(rows) if alarm.name == "proxy-without-gold"]
    assert len(said) == 1
    named = int(said[0].split("--checkpoint ")[1].split(";")[0])
    assert 5 <= named <= 9
    assert kept_steps(tmp_path) == [named, 19, 20]
    again = TrainingState(updater(), PPOState())
    again.resume(tmp_path)
    again.save(tmp_path, keep=2)
    assert kept_steps(tmp_path) == [named, 19, 20], "forgotten by a resumed run"


def test_a_checkpoint_that_an_alarm_named_stays_although_a_better_one_comes_or_the_run_goes_back(
    tmp_path: Path,
) -> None:
    """Gold peaks at 6, falls, and is better than ever at the end; or the rows of the peak were discarded."""
    golds = [1.0 - 0.15 * abs(step - 6) if step <= 16 else -0.5 + 0.2 * (step - 16) for step in range(1, 31)]
    rows = [
        {"step": step, "ppo/gold_score": gold, "ppo/proxy_score": 0.2 * step, "ppo/episodes": 64.0 * step}
        for step, gold in enumerate(golds, 1)
    ]
    (alarm,) = find_alarms(rows)
    named = int(alarm.remedy.split("--checkpoint ")[1].split(";")[0])
    assert named < 10 and not alarm.lasting and alarm.numbers["peak_iteration"] == named
    guard, state = (
        AlarmGuard(GuardSettings(), Limits(), lambda: rows[:29], tmp_path),
        TrainingState(updater(), PPOState()),
    )
    guard.check_alarms(state, 30, rows[-1])
    assert state.values.named == [named, 30]
    state.values.rollbacks = [18]  # the report has the iterations of the alarm, whatever was discarded since
    AlarmGuard(GuardSettings(), Limits(), lambda: rows[:29], tmp_path).check_alarms(state, 30, rows[-1])
    assert state.values.named == [named, 30]
    # After going back at 9 the rows from 4 to 9 do not count: what falls afterwards fell from another peak.
    later = [row | {"ppo/gold_score": 0.6 - 0.1 * max(0, row["step"] - 16)} for row in rows[9:26]]
    state.values.rollbacks = [9]
    guard = AlarmGuard(GuardSettings(), Limits(), lambda: [*rows[:9], *later[:-1]], tmp_path)
    guard.check_alarms(state, 26, later[-1])
    (own,) = (each for each in find_alarms([*rows[:3], *later]) if each.name == "proxy-without-gold")
    assert 10 <= own.numbers["peak_iteration"] <= 16 and own.numbers["peak_iteration"] in state.values.named
    assert named in state.values.named


def test_a_number_that_is_not_finite_is_an_alarm_that_can_be_acted_on(tmp_path: Path) -> None:
    guard = AlarmGuard(GuardSettings(on_alarm="raise-kl-coefficient", alarms=("not-finite",)), Limits(), list, tmp_path)
    state = TrainingState(updater(), PPOState(kl_coefficient=0.1))
    assert guard.check_alarms(state, 1, {"ppo/entropy": 2.0}) is None
    alarm = guard.check_alarms(state, 2, {"ppo/entropy": math.nan, "ppo/skipped_steps": 1.0})
    assert alarm is not None and alarm.message == "ppo/entropy came out as NaN or infinite."
    assert state.values.kl_coefficient == 0.2
    assert guard.check_alarms(state, 3, {"ppo/entropy": 2.0}) is None


def test_no_alarm_is_acted_on_before_the_iteration_of_the_last_rollback(tmp_path: Path) -> None:
    """The phase repeats iterations that it has gone back over; they were acted on once."""
    chosen = GuardSettings(on_alarm="raise-kl-coefficient", alarms=("not-finite",), rollbacks=3)
    guard = AlarmGuard(chosen, Limits(), list, tmp_path)
    state = TrainingState(updater(), PPOState(kl_coefficient=0.1, rollbacks=[1, 3]))
    broken = {"ppo/entropy": math.nan, "ppo/skipped_steps": 1.0}
    assert guard.check_alarms(state, 2, broken) is None
    assert guard.check_alarms(state, 3, broken) is None and state.values.kl_coefficient == 0.1
    assert guard.check_alarms(state, 4, broken) is not None and state.values.kl_coefficient == 0.2


def test_iterations_that_are_done_again_count_once(tmp_path: Path) -> None:
    """After running out of memory the phase continues from an earlier checkpoint: later iterations are repeated."""
    again, once = (AlarmGuard(GuardSettings(), Limits(), lambda: [], tmp_path) for _ in range(2))
    state = TrainingState(updater(), PPOState())
    for iteration in (1, 2, 3, 4, 5, 3, 4, 5, 6):
        again.check_alarms(state, iteration, {"ppo/entropy": 1.0})
    for iteration in range(1, 7):
        once.check_alarms(state, iteration, {"ppo/entropy": 1.0})
    assert again._rows == once._rows


def test_a_warning_shows_responses_of_its_iteration_in_a_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def samples(iteration: int) -> list[dict[str, object]]:
        asked.append(iteration)
        return [{"prompt": "p", "response": f"a\x1b[2J\n{'b' * n * 100}", "score": float(n)} for n in range(3)]

    guard = AlarmGuard(GuardSettings(), Limits(), lambda: [], tmp_path, samples=samples)
    for iteration in range(1, 9):
        row = {"ppo/clip_fraction": 0.9, "ppo/episodes": 64.0 * iteration}
        guard.check_alarms(TrainingState(updater(), PPOState()), iteration, row)
    told = [record.getMessage() for record in caplog.records]
    assert len(asked) == 1  # at the first look that counts
    assert told[0].startswith(f"alarm clip-fraction at iteration {asked[0]}") and len(told) == 4
    assert told[1].startswith("  score 2: a") and told[3].startswith("  score 0: a")
    assert all("\n" not in line and "\x1b" not in line and len(line) < 200 for line in told[1:])


def test_an_empty_response_is_shown_as_empty() -> None:
    assert _cut("") == _cut(" \n ") == "(empty)"


@pytest.mark.parametrize(("length", "shown"), [(159, "a" * 159), (160, "a" * 160), (161, "a" * 160 + "…")])
def test_a_response_is_cut_where_it_is_longer_than_a_line(length: int, shown: str) -> None:
    assert _cut("a" * length) == shown
