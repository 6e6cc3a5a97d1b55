"""Several episodes to a prompt: in one row behind it they are what they are in rows of their own."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from tests.phases.rollouts import evaluated
from tests.phases.test_ppo import gradients, moved, phase, rolled_out, settings, whole_state
from tests.small import Lines, samples, shared_model, stir

from triphase.batches.padding import TokenBatch, pad_batch
from triphase.batches.sharing import GroupBatch
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.phases.experience import Experience, Minibatch, minibatches_of, rows_of
from triphase.phases.minibatch import accumulate_gradients
from triphase.phases.ppo import PPOPhase
from triphase.tokens.encoding import Encoded
from triphase.training.loop import LoopOptions, run_loop

FIGURES = ("logprobs", "reference_logprobs", "values", "entropy", "scores")
SMALL = {"responses_per_prompt": 2, "microbatch_tokens": 60, "entropy_coefficient": 0.02}


def model(kind: str = "llama", **config: object) -> SharedModel:
    shared = shared_model(kind, **config)
    for number, adapter in enumerate((REFERENCE, REWARD, POLICY)):
        stir(shared, adapter, seed=number)
    with torch.no_grad():
        shared.value_head.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
    return shared


def answers(times: int, prompts: int = 4) -> list[Encoded]:
    asked, given = samples(prompts, seed=1), samples(prompts * times, seed=2)
    return [dataclasses.replace(answer, prompt=asked[n // times].prompt) for n, answer in enumerate(given)]


def said(shared: SharedModel, made: list[Encoded], **changes: object) -> Experience:
    return evaluated(shared, made, settings(**(SMALL | changes)), seed=0, iteration=1)


def members(minibatches: list[Minibatch]) -> list[list[int]]:
    return [sorted(episode for part in parts for episode in part) for parts in minibatches]


def rollout(ppo: PPOPhase, *, packs: bool) -> tuple[Experience, dict[str, torch.Tensor], dict[str, float]]:
    """One rollout, and the gradient of its first minibatch for a policy that has moved."""
    ppo.shared.backbone.packs = packs
    _, found, advantages = rolled_out(ppo)
    moved(ppo)
    figures = accumulate_gradients(ppo.policy, found.minibatches[0], found, advantages, ppo.settings, first=False)
    return found, gradients(ppo), figures


@pytest.mark.parametrize("times", [2, 4])
def test_what_the_roles_say_is_that_of_rows_of_their_own(times: int) -> None:
    shared, made = model(), answers(times)
    packed = said(shared, made, responses_per_prompt=times)
    apart = said(shared, made, responses_per_prompt=1)
    assert isinstance(packed.batch, GroupBatch) and isinstance(apart.batch, TokenBatch)
    assert len(packed.boundary.values) == len(apart.boundary.values) / times
    assert torch.equal(packed.batch.response_mask, apart.batch.response_mask)
    for name in FIGURES:
        one, other = getattr(packed, name), getattr(apart, name)
        assert one.abs().max() > 0.1
        assert torch.allclose(one, other, rtol=0, atol=1e-5), name


def test_the_gradient_is_that_of_rows_of_their_own() -> None:
    (packed, ours, shown), (apart, theirs, expected) = (
        rollout(phase(settings(**SMALL)), packs=packs) for packs in (True, False)
    )
    assert isinstance(packed.batch, GroupBatch) and isinstance(apart.batch, TokenBatch)
    assert members(packed.minibatches) == members(apart.minibatches)
    assert shown == pytest.approx(expected, rel=1e-4, abs=1e-6) and shown["ppo/ratio_max"] > 1.05
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name


def test_a_model_with_a_window_takes_rows_of_their_own() -> None:
    shared, made = model("mistral", sliding_window=4), answers(2)
    found, expected = said(shared, made), said(shared, made, responses_per_prompt=1)
    assert isinstance(found.batch, TokenBatch)
    for name in FIGURES:
        assert torch.allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-5), name
    shared.backbone.packs = True  # what the window would make of one row
    assert not torch.allclose(said(shared, made).logprobs, expected.logprobs, rtol=0, atol=1e-2)


def test_a_minibatch_holds_whole_groups_and_an_epoch_each_of_them_once() -> None:
    made, seen = answers(3, prompts=16), []
    sizes = {"batch_size": 48, "minibatch_size": 24, "responses_per_prompt": 3}
    chosen = settings(**(SMALL | sizes))
    packed, apart = said(model(), made, **sizes).batch, pad_batch(made, pad_id=0)
    for epoch in range(3):
        minibatches = minibatches_of(packed, chosen, seed=0, iteration=0, epoch=epoch)
        assert any(len(parts) > 1 for parts in minibatches)
        for episodes in (part for parts in minibatches for part in parts):
            groups = [episode // 3 for episode in episodes[::3]]
            assert episodes == [group * 3 + member for group in groups for member in range(3)]
        first, second = found = members(minibatches)
        assert len(first) == len(second) == 24 and sorted(first + second) == list(range(48))
        assert members(minibatches_of(apart, chosen, seed=0, iteration=0, epoch=epoch)) == found
        seen.append(tuple(first))
    assert len(set(seen)) == 3


def test_the_chosen_episodes_are_those_of_a_batch_of_their_own() -> None:
    made = answers(2)
    found = said(model(), made)
    chosen = [6, 7, 2, 3]
    part, boundary = rows_of(found.batch, found.boundary, chosen)
    width = int(part.response_lengths.max())
    assert torch.equal(part.responses, found.batch.responses[chosen, :width])
    assert torch.equal(boundary, found.boundary.values[[3, 1], : boundary.shape[1]])


def test_an_iteration_asks_fewer_prompts_several_times() -> None:
    ppo = phase(settings(responses_per_prompt=4, temperature=2.0))
    chosen = ppo.rollouts.prompts(0)
    assert len(set(chosen)) == 2 and chosen == sorted(chosen, key=chosen.index)
    asked = [*ppo.rollouts.prompts(0), *ppo.rollouts.prompts(1), *ppo.rollouts.prompts(2)][::4]
    assert len(set(asked)) == 6  # of 7: no prompt again before each had its turn
    generated = ppo.rollouts.sampled(0, chosen).generated
    assert len({answer.ids for answer in generated[:4]}) > 1
    metrics = ppo.advance(0)
    assert metrics["ppo/episodes"] == 8 and metrics["ppo/steps"] == 4


def test_the_first_ratio_and_divergence_are_exact() -> None:
    metrics = phase(settings(epochs=1, minibatch_size=8, **SMALL)).advance(0)
    assert metrics["ppo/reference_kl"] == 0.0
    assert metrics["ppo/ratio_max"] == metrics["ppo/ratio_mean"] == 1.0
    assert all(math.isfinite(value) for value in metrics.values())


def test_after_a_cut_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    chosen = settings(**SMALL)
    expected, lines, kept = phase(chosen), Lines(), Lines()
    run_loop(expected, LoopOptions(tmp_path / "whole", lines, keep=1))

    def fail(_: object) -> None:
        if len(kept.rows) == 2:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run_loop(phase(chosen), LoopOptions(tmp_path / "cut", kept, keep=1, on_step=fail))
    resumed = phase(chosen)
    run_loop(resumed, LoopOptions(tmp_path / "cut", kept, keep=1))
    assert whole_state(resumed) == whole_state(expected)
    assert kept.plain() == lines.plain()


def test_a_rollout_with_a_nan_is_kept_with_its_rows(tmp_path: Path) -> None:
    ppo = phase(settings(**SMALL))
    ppo.directory = tmp_path
    with torch.no_grad():
        ppo.shared.score_head.linear.bias.fill_(math.nan)
    assert ppo.advance(0)["ppo/skipped_steps"] == 1
    assert (tmp_path / "bad" / "000001.safetensors").exists()
