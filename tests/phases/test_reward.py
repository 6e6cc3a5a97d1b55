"""The reward model: rankings have equal weight, a planted preference is recovered, scores are calibrated."""

import math
import random
from pathlib import Path
from statistics import pstdev

import pytest
import torch
from tests.small import Encoded, Lines, samples, shared_model, stir

from triphase.errors import TrainingError
from triphase.models.roles import REFERENCE, REWARD, SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.phases.heldout import EVALUATIONS_PER_PHASE
from triphase.phases.reward import RewardPhase
from triphase.phases.reward_calibration import calibrate
from triphase.records.types import Pair
from triphase.rewards.model import score_samples
from triphase.settings.phases import OptimizerSettings, RewardSettings
from triphase.tokens.encoding import EncodedGroup
from triphase.training.distributed.types import Strategy
from triphase.training.loop import LoopOptions, run_loop
from triphase.training.stopping import Stopped, StopRequest

GOOD = 6  # the planted preference: responses with more of this word are better


def groups_of(count: int, *, seed: int = 0, responses: int = 4) -> list[EncodedGroup]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        prompt = tuple(draw.randrange(8, 26) for _ in range(draw.randint(2, 5)))
        liked = draw.sample(range(5), responses)
        bodies = [[GOOD] * n + [draw.randrange(8, 26) for _ in range(5 - n)] for n in liked]
        for body in bodies:
            draw.shuffle(body)
        found.append(EncodedGroup(prompt, tuple((*body, 1) for body in bodies)))
    return found


def pairs_of(group: EncodedGroup) -> list[Pair]:
    liked = [response.count(GOOD) for response in group.responses]
    return [
        Pair(a, b, 1.0 if liked[a] > liked[b] else 0.0) for a in range(len(liked)) for b in range(a + 1, len(liked))
    ]


def settings(**values: object) -> RewardSettings:
    optimizer = OptimizerSettings(learning_rate=3e-3, head_learning_rate=1e-2, schedule="constant")
    return RewardSettings(**{"batch_size": 4, "head_penalty": None, "optimizer": optimizer, **values})


def phase(shared: SharedModel, groups=None, pairs=None, heldout=(), **values: object) -> RewardPhase:
    groups = groups or groups_of(8)
    pairs = pairs or [pairs_of(group) for group in groups]
    if REFERENCE not in next(iter(shared.adapters._modules.values())).lora_a:
        stir(shared, REFERENCE)
    return RewardPhase(
        shared, groups, pairs, list(heldout), [pairs_of(group) for group in heldout], settings(**values), seed=0
    )


def gradients(most: int, window: int | None) -> tuple[float, dict[str, torch.Tensor]]:
    kind = {"kind": "mistral", "sliding_window": window} if window else {"kind": "llama"}
    subject = phase(shared_model(**kind), batch_size=8, microbatch_tokens=most)
    found: dict[str, torch.Tensor] = {}

    def keep():
        from triphase.training.step import StepResult

        found.update({name: value.grad.clone() for name, value in subject.state.updater.parameters.items()})
        return StepResult(0.0, 0.0, False)

    subject.state.updater.step = keep
    return subject.advance(0)["reward/loss"], found


@pytest.mark.parametrize("window", [None, 64])  # prompts shared in a row, and a row for each response
def test_the_size_of_a_microbatch_changes_nothing(window: int | None) -> None:
    whole, parts = gradients(10_000, window), gradients(1, window)
    assert whole[0] == pytest.approx(parts[0], abs=1e-6)
    for name, gradient in whole[1].items():
        assert torch.allclose(gradient, parts[1][name], rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_over_rankings_of_the_mean_over_pairs() -> None:
    shared = shared_model()
    groups = [groups_of(1, seed=1)[0], groups_of(1, seed=2, responses=2)[0]]
    subject = phase(shared, groups, batch_size=2, centering=0.0)
    expected, before = 0.0, subject.scores_of(subject.trained)
    for group, scores in zip(groups, before, strict=True):
        found = [
            math.log1p(math.exp(-(float(scores[p.first] - scores[p.second]) * (1 if p.target else -1))))
            for p in pairs_of(group)
        ]
        expected += sum(found) / len(found) / 2
    metrics = subject.advance(0)
    assert metrics["reward/loss"] == pytest.approx(expected, abs=1e-5)
    assert metrics["reward/score_deviation"] == pytest.approx(pstdev(torch.cat(before).tolist()), rel=1e-4)


def test_scores_of_groups_are_those_of_their_samples() -> None:
    shared = shared_model()
    groups = groups_of(7)
    subject = phase(shared, groups, microbatch_tokens=60)
    flat = [Encoded(group.prompt, response) for group in groups for response in group.responses]
    found = torch.cat(subject.scores_of(subject.trained))
    assert torch.allclose(found, score_samples(shared, flat, max_tokens=10_000), rtol=0, atol=1e-5)
    subject.strategy = type("OneOfTwo", (Strategy,), {"world": 2})()  # it has computed all groups of both ranks
    assert torch.equal(torch.cat(subject.scores_of(subject.trained)), found)


def test_a_tie_pulls_scores_together_and_a_soft_label_to_its_odds(tmp_path: Path) -> None:
    group = groups_of(1, responses=3)[0]
    targets = [Pair(0, 1, 0.5), Pair(1, 2, 0.8)]
    subject = phase(shared_model(), [group], [targets], epochs=300, batch_size=1, centering=0.0)
    run_loop(subject, LoopOptions(tmp_path, Lines(), keep=1, every=1000))
    scores = subject.scores_of([0])[0]
    assert float(scores[0] - scores[1]) == pytest.approx(0, abs=0.05)
    assert float(scores[1] - scores[2]) == pytest.approx(math.log(4), abs=0.05)


@pytest.mark.parametrize("penalty", [None, 0.01])
def test_a_planted_preference_is_found_again_on_other_prompts(penalty: float | None, tmp_path: Path) -> None:
    shared, lines = shared_model(rank=8, adapted="all"), Lines()
    heldout = groups_of(40, seed=99)
    subject = phase(shared, groups_of(300), heldout=heldout, epochs=4, batch_size=10, head_penalty=penalty)
    before = {name: shared.adapters.state(name) for name in (REFERENCE,)}
    run_loop(subject, LoopOptions(tmp_path, lines, keep=1, every=1000))
    last = lines.rows[len(lines.rows)]
    assert last["reward/heldout_accuracy"] > 0.95
    assert last["reward/heldout_loss"] < 0.3
    state = shared.adapters.state(REFERENCE)
    assert all(torch.equal(value, state[name]) for name, value in before[REFERENCE].items())
    assert any(bool((value != state[name]).any()) for name, value in shared.adapters.state(REWARD).items())


def test_the_accuracy_of_a_step_is_the_share_of_its_pairs_in_the_right_order() -> None:
    subject = phase(shared_model(), groups_of(8), batch_size=8)
    right = [
        float((scores[pair.first] > scores[pair.second]) == (pair.target > 0.5))
        for group, scores in zip(subject.groups, subject.scores_of(subject.trained), strict=True)
        for pair in pairs_of(group)
    ]
    assert 0 < sum(right) < len(right) == 48
    assert subject.advance(0)["reward/preference_accuracy"] == pytest.approx(sum(right) / 48)


def test_where_all_pairs_are_ties_there_is_no_accuracy() -> None:
    group = groups_of(1)[0]
    metrics = phase(shared_model(), [group], [[Pair(0, 1, 0.5)]], batch_size=1).advance(0)
    assert "reward/preference_accuracy" not in metrics


def test_a_loop_without_progress_fits_the_head_too(tmp_path: Path) -> None:
    subject = phase(shared_model(), groups_of(8), head_penalty=0.01)
    assert not subject.head_summary()
    run_loop(subject, LoopOptions(tmp_path, Lines(), keep=1))
    assert subject.head_summary()["penalty"] == 0.01
    assert not any(each.requires_grad for each in subject.shared.adapters.parameters(REWARD).values())


@pytest.mark.parametrize(("penalty", "visits"), [(None, 2.0), (0.01, 3.0)])
def test_a_reward_model_alone_visits_each_ranking_once_an_epoch_and_for_the_fit(penalty, visits: float) -> None:
    subject = phase(shared_model(), groups_of(3), heldout=groups_of(1, seed=9), epochs=2, head_penalty=penalty)
    assert subject._visits() == [visits] * 3 + [EVALUATIONS_PER_PHASE]


def test_a_batch_with_a_nan_teaches_nothing_and_is_kept(tmp_path: Path) -> None:
    subject = phase(shared_model(), groups_of(4))
    subject.directory = tmp_path
    with torch.no_grad():
        subject.shared.score_head.linear.bias.fill_(math.nan)
    before = subject.shared.adapters.state(REWARD)
    assert subject.advance(0)["reward/skipped_steps"] == 1
    assert all(torch.equal(value, before[name]) for name, value in subject.shared.adapters.state(REWARD).items())
    assert (tmp_path / "bad" / "000001.safetensors").exists()


@pytest.mark.parametrize("epochs", [0.5, 1.0, 2.5])
def test_every_ranking_is_seen_as_often_as_the_epochs_say(epochs: float) -> None:
    order = phase(shared_model(), epochs=epochs).order
    assert len(order) == round(8 * epochs)
    counts = [order.count(member) for member in range(8)]
    assert max(counts) - min(counts) <= 1


# Calibration


def test_calibrated_scores_have_mean_0_and_deviation_1_on_the_reference_samples() -> None:
    shared, made = shared_model(), samples(60)
    stir(shared, REWARD)
    before = score_samples(shared, made, max_tokens=500)
    found = calibrate(shared, made, max_tokens=500)
    assert found.samples == 60
    assert found.mean == pytest.approx(float(before.mean()), abs=1e-6)
    assert found.standard_deviation == pytest.approx(float(before.std(unbiased=False)), abs=1e-6)
    after = score_samples(shared, made, max_tokens=70)
    assert float(after.mean()) == pytest.approx(0, abs=1e-5)
    assert float(after.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    assert torch.equal(after.argsort(), before.argsort())


def test_scores_that_do_not_differ_are_refused_with_the_remedy() -> None:
    shared = shared_model()
    stir(shared, REWARD)
    with torch.no_grad():
        shared.score_head.linear.weight.zero_()
    with pytest.raises(
        TrainingError, match=r"same score to all reference samples \(standard deviation 0\).*triphase check"
    ):
        calibrate(shared, samples(5), max_tokens=500)


# The fit of the head


def test_loss_and_heldout_loss_are_the_plain_likelihood() -> None:
    """Centering, margins and smoothing affect training; the metric is the likelihood of the labels."""
    groups = groups_of(4, seed=3)
    pairs = [[Pair(p.first, p.second, p.target, 0.7) for p in pairs_of(group)] for group in groups]
    plain = {"centering": 0.0}
    told = {"centering": 5.0, "label_smoothing": 0.2}
    found = []
    for values in (plain, told):
        shared = shared_model()
        subject = phase(shared, groups, pairs, heldout=groups_of(3, seed=4), **values)
        with torch.no_grad():
            shared.score_head.linear.bias.fill_(3.0)  # an offset, which only centering minds
        found.append((subject.heldout_figures()["reward/heldout_loss"], subject.advance(0)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6) and found[0][0] < 1.5
    assert found[0][1]["reward/loss"] == pytest.approx(found[1][1]["reward/loss"], abs=1e-6)
    assert found[1][1]["reward/objective"] > found[1][1]["reward/loss"] + 50


def test_the_head_shows_its_own_progress_and_training_begins_its_own(tmp_path: Path) -> None:
    progress = SilentProgress()
    subject = phase(shared_model(), groups_of(12), heldout=groups_of(4, seed=9), head_penalty="auto")
    subject.begin(tmp_path, progress)
    features, fits = progress.tracks
    assert (features.done, features.total, features.unit) == (12, 12, "rankings")
    assert fits.done == fits.total == 105
    assert subject.directory == subject.trunk_cache.directory == tmp_path  # for trunk states and bad batches
    head = subject.state.values.head
    assert head.penalty in [penalty for penalty, _ in head.curve]
    assert head.heldout["reward/heldout_loss"] == subject.heldout_figures()["reward/heldout_loss"]
    before = subject.shared.score_head.linear.weight.clone()
    lines = Lines()
    run_loop(subject, LoopOptions(tmp_path, lines, keep=1, every=1))
    assert len(progress.tracks) == 2 and lines.rows[1]["reward/head_penalty"] == head.penalty
    assert not torch.equal(before, subject.shared.score_head.linear.weight)


def test_a_resumed_phase_does_not_fit_the_head_again(tmp_path: Path) -> None:
    whole = phase(shared_model(), groups_of(12), head_penalty="auto")
    run_loop(whole, LoopOptions(tmp_path / "whole", Lines(), keep=9, every=1))
    first = phase(shared_model(), groups_of(12), head_penalty="auto")
    asked = StopRequest()
    asked.asked = True
    lines, progress = Lines(), SilentProgress()
    with pytest.raises(Stopped):
        run_loop(first, LoopOptions(tmp_path / "parts", lines, keep=9, every=1, stop=asked))
    again = phase(shared_model(), groups_of(12), head_penalty="auto")
    again.begin(tmp_path / "parts", progress)
    run_loop(again, LoopOptions(tmp_path / "parts", lines, keep=9, every=1))
    assert not progress.tracks and again.state.values == whole.state.values
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole), _weights(again), strict=True))


def test_rankings_of_one_prompt_alone_are_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    subject = phase(shared_model(), groups_of(1), head_penalty="auto")
    subject.begin(tmp_path, SilentProgress())
    assert "reward.head_penalty cannot be chosen by cross-validation and is 1" in caplog.text
    assert subject.state.values.head.curve == [] and "reward/head_loss" not in subject.advance(0)


def _weights(subject: RewardPhase) -> list[torch.Tensor]:
    return [value.detach() for value in subject.state.updater.parameters.values()]
