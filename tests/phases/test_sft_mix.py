"""The supervised loss added to PPO, compared with plainly written sums, over resumption, variants and early ends."""

from pathlib import Path

import pytest
import torch
from tests.phases.test_ppo import TEXTS, moved, resumed_after_cuts, settings, whole_state
from tests.small import Encoded, Lines, samples, shared_model, stir

from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.phases.ppo import PPOPhase
from triphase.phases.sft_mix import SFTMix, visits
from triphase.records.types import Message, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.ppo import PPOSettings
from triphase.training.loop import LoopOptions, run_loop

SHOWN = samples(6, seed=5)


def mixed(chosen: PPOSettings, shared: SharedModel | None = None, *, mix: SFTMix | None = None) -> PPOPhase:
    if shared is None:
        shared = shared_model()
        for number, adapter in enumerate((REFERENCE, REWARD)):
            stir(shared, adapter, seed=number)
    prompts = [Prompt(text, (Message("user", text),)) for text in TEXTS]
    ids = [tuple(shared.template.prompt_ids(prompt.messages)) for prompt in prompts]
    if mix is None and chosen.sft_mix:
        order = [visit * 5 % len(SHOWN) for visit in range(visits(chosen))]
        mix = SFTMix(shared, SHOWN, order, chosen)
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=8)
    return PPOPhase(shared, prompts, ids, generator, chosen, seed=0, mix=mix)


def gradients(ppo: PPOPhase) -> dict[str, torch.Tensor]:
    trained = ppo.state.updater.parameters.items()
    return {name: value.grad.clone() for name, value in trained if value.grad is not None}


@pytest.mark.parametrize("microbatch_tokens", [10_000, 12])
def test_the_gradient_is_the_coefficient_times_that_of_the_mean_over_all_response_tokens(
    microbatch_tokens: int,
) -> None:
    chosen = settings(sft_mix=0.7, microbatch_tokens=microbatch_tokens, temperature=0.5)
    ppo = mixed(chosen)
    moved(ppo)
    assert ppo.mix is not None
    figures = ppo.mix.accumulate(ppo.policy, 1, 2, max_tokens=microbatch_tokens)
    ours = gradients(ppo)
    ppo.state.updater.discard()

    # Iteration 1, step 2: after 4 steps of the iteration before and 2 of this one, of 4 demonstrations each.
    seen: list[Encoded] = [SHOWN[visit * 5 % len(SHOWN)] for visit in range(24, 28)]
    total = torch.zeros(())
    for sample in seen:
        with ppo.shared.role(POLICY):
            logits = ppo.shared.backbone.model(input_ids=torch.tensor([[*sample.prompt, *sample.response]])).logits
        logprobs = logits[0, len(sample.prompt) - 1 : -1].log_softmax(-1)  # at temperature 1, whatever PPO samples at
        total = total - sum(logprobs[place, token] for place, token in enumerate(sample.response))
    loss = total / sum(len(sample.response) for sample in seen)
    (0.7 * loss).backward()
    expected = gradients(ppo)
    assert figures["ppo/sft_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert ours.keys() == expected.keys() and len(ours) > 0
    for name, gradient in expected.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=1e-6), name


def test_the_loss_joins_every_step_and_demonstrations_are_forgotten_less() -> None:
    ends = []
    for mix in (0.0, 5.0):
        ppo = mixed(settings(sft_mix=mix, iterations=3))
        rows = [ppo.advance(iteration) for iteration in range(3)]
        assert all(("ppo/sft_loss" in row) is (mix > 0) for row in rows)
        judge = SFTMix(ppo.shared, SHOWN, range(6), settings(sft_mix=1.0, minibatch_size=8, epochs=1))
        ends.append(judge.accumulate(ppo.policy, 0, 0, max_tokens=None)["ppo/sft_loss"])
    assert ends[1] < ends[0] - 0.05


def test_while_the_critic_alone_learns_nothing_is_mixed_in() -> None:
    ppo = mixed(settings(sft_mix=1.0, critic_warmup=1))
    before = ppo.shared.adapters.state(POLICY)
    assert "ppo/sft_loss" not in ppo.advance(0)
    assert all(torch.equal(value, before[name]) for name, value in ppo.shared.adapters.state(POLICY).items())
    assert "ppo/sft_loss" in ppo.advance(1)


def test_after_a_cut_at_any_iteration_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    chosen = settings(sft_mix=0.5)
    expected, lines = mixed(chosen), Lines()
    run_loop(expected, LoopOptions(tmp_path / "whole", lines, keep=1))
    for resumed, kept in resumed_after_cuts(lambda: mixed(chosen), tmp_path, (1, 2)):
        assert whole_state(resumed) == whole_state(expected)
        assert kept.plain() == lines.plain()


def test_a_coefficient_without_demonstrations_is_refused_and_the_other_way_about() -> None:
    for coefficient, mix in ((0.5, None), (0.0, object())):
        ppo = mixed(settings())
        with pytest.raises(ValueError, match="sft_mix"):
            PPOPhase(
                ppo.shared,
                ppo.prompts,
                ppo.prompt_ids,
                ppo.rollouts._generator,
                settings(sft_mix=coefficient),
                seed=0,
                mix=mix,
            )
