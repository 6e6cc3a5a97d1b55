"""The KL penalty that counts from a later policy: what it counts, what reports count, and cuts."""

from pathlib import Path

import pytest
import torch
from tests.phases.test_ppo import phase, resumed_after_cuts, settings, whole_state
from tests.small import Lines

from triphase.models.roles import POLICY, REFERENCE
from triphase.phases.reset_reference import RESET
from triphase.training.checkpoint import load_checkpoint
from triphase.training.loop import LoopOptions, run_loop


def test_from_each_reset_the_penalty_counts_from_the_policy_of_that_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    from triphase.phases import ppo as module

    seen, taken = [], []
    shape = module.shape_rewards

    def watched(experience, *rest, **options):  # type: ignore[no-untyped-def]
        seen.append(experience)
        return shape(experience, *rest, **options)

    monkeypatch.setattr(module, "shape_rewards", watched)
    ppo = phase(settings(iterations=5, reference_reset_every=2))
    reference = ppo.shared.adapters.state(REFERENCE)
    rows = []
    for iteration in range(5):
        taken.append(ppo.shared.adapters.state(POLICY))
        rows.append(ppo.advance(iteration))
        copied = None if iteration < 2 else taken[iteration // 2 * 2]
        assert ppo.shared.adapters.has(RESET) is (copied is not None)
        if copied is not None:
            kept = ppo.shared.adapters.state(RESET)
            assert all(torch.equal(kept[name], copied[name]) for name in kept)
    # At a reset the policy is what the penalty counts from, to the bit; the report goes on counting from the start.
    for iteration, experience in enumerate(seen):
        mask = experience.batch.response_mask
        zero = torch.equal(experience.logprobs * mask, experience.counted_from * mask)
        assert zero is (iteration in (0, 2, 4))
    assert [("ppo/penalty_kl" in row) for row in rows] == [False, False, True, True, True]
    assert rows[2]["ppo/penalty_kl"] == 0 and rows[4]["ppo/penalty_kl"] == 0 and rows[3]["ppo/penalty_kl"] != 0
    assert all(rows[iteration]["ppo/reference_kl"] != 0 for iteration in (1, 2, 3, 4))
    now = ppo.shared.adapters.state(REFERENCE)
    assert all(torch.equal(now[name], reference[name]) for name in now)
    ppo.finish()
    assert not ppo.shared.adapters.has(RESET)


def test_the_controller_follows_the_penalty_and_the_budget_the_report() -> None:
    ppo = phase(settings(iterations=5, reference_reset_every=2, kl_target=1e-3, kl_horizon=100.0, kl_budget=1e-9))
    ppo._control({"ppo/reference_kl": 5.0, "ppo/penalty_kl": 0.0}, 8)
    assert ppo.state.values.kl_coefficient < 0.05  # under its target
    assert ppo.state.values.finished is not None and "5.00" in ppo.state.values.finished


def test_after_a_cut_at_any_iteration_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    chosen = settings(iterations=5, reference_reset_every=2)
    expected, lines = phase(chosen), Lines()
    run_loop(expected, LoopOptions(tmp_path / "whole", lines, keep=1))
    assert expected.state.untrained
    plain, without = phase(settings(iterations=5)), Lines()
    run_loop(plain, LoopOptions(tmp_path / "plain", without, keep=1))
    assert whole_state(plain) != whole_state(expected)
    for resumed, kept in resumed_after_cuts(lambda: phase(chosen), tmp_path, range(1, 5)):
        assert whole_state(resumed) == whole_state(expected)
        assert kept.plain() == lines.plain()


def test_what_goes_back_to_a_checkpoint_counts_from_the_copy_of_then(tmp_path: Path) -> None:
    ppo = phase(settings(iterations=5, reference_reset_every=2))
    reset, state = ppo.reset, ppo.state

    def copy_at(iteration: int) -> dict[str, torch.Tensor]:
        reset.at(iteration, ppo.policy, state)
        return ppo.shared.adapters.state(RESET)

    def move(value: float) -> None:
        with torch.no_grad():
            for parameter in ppo.policy.parameters().values():
                parameter.fill_(value)

    move(1.0)
    copied = copy_at(2)
    state.position = 3
    state.save(tmp_path, keep=9)
    move(2.0)
    assert all(bool((value == 2).all()) for value in copy_at(4).values())
    # A guard that gives the weights back, and a phase that begins again after a lack of memory.
    for go_back in (lambda: state.load_tensors(load_checkpoint(tmp_path, 3).tensors), lambda: state.resume(tmp_path)):
        copy_at(4)
        go_back()
        now = copy_at(3)
        assert all(torch.equal(now[name], copied[name]) for name in now)


def test_what_cannot_be_reset_is_refused() -> None:
    with pytest.raises(ValueError, match="method full has none"):
        settings(reference_reset_every=1, method="full")
    with pytest.raises(ValueError, match="not reached in 3 iterations"):
        settings(reference_reset_every=3)
