"""Rollouts that are sampled one iteration ahead: by which policy, and after a cut, a rollback or a pass too large."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.phases import test_ppo
from tests.phases.test_ppo import resumed_after_cuts, settings, whole_state
from tests.small import Lines

from triphase.batches.padding import pad_batch
from triphase.models.roles import POLICY
from triphase.phases import ppo as ppo_module
from triphase.phases.guards import judge_rollout
from triphase.phases.ppo import PPOPhase
from triphase.phases.rank_sharing import LedGenerator
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Generated, Request
from triphase.runs.loop_options import _options
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded
from triphase.training.checkpoint import load_checkpoint
from triphase.training.checkpoint_places import CHECKPOINTS
from triphase.training.distributed.types import ALONE
from triphase.training.loop import LoopOptions, run_loop

Weights = dict[str, torch.Tensor]


class Servers:
    """Stands for servers: they sample from the adapter as it is when they are sent the requests."""

    def __init__(self, inner: LocalGenerator) -> None:
        self.inner, self.shared = inner, inner._shared
        self.sampled_by: list[Weights] = []
        self.begun = 0

    def generate(self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        self.sampled_by.append(self.shared.adapters.state(POLICY))
        found = self.inner.generate(requests, temperature=temperature, max_response_tokens=max_response_tokens)
        return [
            replace(each, logprobs=self._logprobs(request, each, temperature))
            for request, each in zip(requests, found, strict=True)
        ]

    def begin(
        self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int
    ) -> Callable[[], list[Generated]]:
        self.begun += 1
        found = self.generate(requests, temperature=temperature, max_response_tokens=max_response_tokens)
        return lambda: found

    @torch.no_grad()
    def _logprobs(self, request: Request, each: Generated, temperature: float) -> tuple[float, ...]:
        batch = pad_batch([Encoded(request.prompt, each.ids)], pad_id=0, device=self.shared.device)
        found = self.shared.policy_output(batch, None, adapter=POLICY, temperature=temperature)
        return tuple(found.logprobs[0].tolist())


def phase(chosen: PPOSettings, *, led: bool = False) -> tuple[PPOPhase, Servers]:
    plain = test_ppo.phase(chosen)
    servers = Servers(LocalGenerator(plain.shared, adapter=POLICY, batch_size=8))
    generator = LedGenerator(servers, ALONE) if led else servers
    made = PPOPhase(plain.shared, plain.prompts, plain.prompt_ids, generator, chosen, seed=0, ahead=True)
    return made, servers


def ahead(**changes: object) -> PPOSettings:
    return settings(importance_limit=2.0, **changes)


def same(first: Weights, second: Weights) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("led", [False, True])
def test_each_rollout_is_sampled_by_the_policy_before_the_updates_of_the_iteration_before(led: bool) -> None:
    ppo, servers = phase(ahead(iterations=4), led=led)
    before, rows = [], []
    for iteration in range(4):
        before.append(ppo.shared.adapters.state(POLICY))
        rows.append(ppo.advance(iteration))
    assert not same(before[0], before[1]) and servers.begun == 3  # nothing is begun that is not trained on
    assert len(servers.sampled_by) == 4
    for iteration, sampler in enumerate(servers.sampled_by):
        assert same(sampler, before[max(0, iteration - 1)]), iteration
    assert [row["ppo/staleness"] for row in rows] == [0, 1, 1, 1]
    assert rows[0]["ppo/sampler_difference"] < 1e-5 < 1e-4 < rows[1]["ppo/sampler_difference"]
    assert abs(rows[0]["ppo/importance_weight"] - 1) < 1e-5 < abs(rows[1]["ppo/importance_weight"] - 1)


def test_after_a_cut_at_any_iteration_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    chosen = ahead(iterations=4, reference_reset_every=2)
    expected, lines = phase(chosen)[0], Lines()
    run_loop(expected, LoopOptions(tmp_path / "whole", lines, keep=1))
    for resumed, kept in resumed_after_cuts(lambda: phase(chosen)[0], tmp_path, (2, 3, 4)):  # 4: after a reset
        assert whole_state(resumed) == whole_state(expected)
        assert kept.plain() == lines.plain()


class GoesBack:
    """Stands for a guard: after the third iteration it goes back to the weights after the first."""

    keep = 4

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints

    def check_alarms(self, state: Any, iteration: int, metrics: Any) -> None:
        if iteration == 3:
            state.load_tensors(load_checkpoint(self.checkpoints, 1).tensors)


def guarded(folder: Path) -> tuple[PPOPhase, Servers]:
    made, servers = phase(ahead(iterations=5))
    made.guard = GoesBack(folder / CHECKPOINTS)  # type: ignore[assignment]
    return made, servers


def test_after_a_rollback_the_next_rollout_is_of_the_policy_that_was_restored(tmp_path: Path) -> None:
    (ppo, servers), lines = guarded(tmp_path / "whole"), Lines()
    run_loop(ppo, LoopOptions(tmp_path / "whole", lines, keep=5))
    assert [row["ppo/staleness"] for row in lines.rows.values()] == [0, 1, 1, 0, 1]
    # Rollouts 1 to 3, the one that was discarded, and the two after it.
    assert len(servers.sampled_by) == 6
    stored = load_checkpoint(tmp_path / "whole" / CHECKPOINTS, 1).tensors
    restored = {name: stored[f"parameter.{name}"] for name in servers.sampled_by[4]}
    assert restored and same(restored, servers.sampled_by[4]) and not same(restored, servers.sampled_by[3])
    kept = Lines()
    resumed = guarded(tmp_path / "cut")[0]
    for begun in (resumed, guarded(tmp_path / "cut")[0]):  # ends after the rollback, and is begun again
        begun.total_steps = 3 if begun is resumed else 5
        run_loop(begun, LoopOptions(tmp_path / "cut", kept, keep=5))
        resumed = begun
    assert whole_state(resumed) == whole_state(ppo) and kept.plain() == lines.plain()


def test_an_iteration_that_starts_again_in_smaller_passes_keeps_both_rollouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo, servers = phase(ahead(iterations=3, microbatch_tokens=64))
    inner, tries = ppo_module.accumulate_gradients, [0]

    def fails_once(*words: Any, **options: Any) -> dict[str, float]:
        tries[0] += 1
        if tries[0] in (5, 7):  # iteration 2: at its first update, and after it
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return inner(*words, **options)

    monkeypatch.setattr(ppo_module, "accumulate_gradients", fails_once)
    lines = Lines()
    run_loop(ppo, LoopOptions(tmp_path, lines, keep=1))
    assert tries[0] > 12 and servers.begun == 2 and len(servers.sampled_by) == 3
    assert [row["ppo/staleness"] for row in lines.rows.values()] == [0, 1, 1]


def test_a_run_that_no_longer_samples_ahead_forgets_the_sampler(tmp_path: Path) -> None:
    ppo, lines = phase(ahead(iterations=2))[0], Lines()
    ppo.total_steps = 1
    run_loop(ppo, LoopOptions(tmp_path, lines, keep=1))
    assert ppo.state.untrained
    plain = test_ppo.phase(settings(iterations=2))
    run_loop(plain, LoopOptions(tmp_path, lines, keep=1))
    assert plain.state.position == 2 and not plain.state.untrained


def test_checkpoints_stay_until_a_rollout_judges_them() -> None:
    for ahead_by, keep in ((0, 1), (1, 2)):
        rollouts = SimpleNamespace(ahead=ahead_by)
        checkpoints = SimpleNamespace(keep=1, every_steps=3, keep_best=1)
        chosen = SimpleNamespace(checkpoints=checkpoints, rollouts=rollouts, guards=SimpleNamespace(skipped_in_a_row=5))
        run: Any = SimpleNamespace(settings=chosen, part=Path, stop=None)
        guard: Any = SimpleNamespace(keep=0)
        assert _options(run, "ppo", Lines(), guard).keep == keep
        assert _options(run, "sft", Lines(), None).keep == 1


def test_this_process_cannot_sample_while_it_trains() -> None:
    plain = test_ppo.phase(settings())
    generator = LocalGenerator(plain.shared, adapter=POLICY, batch_size=8)
    with pytest.raises(ValueError, match="as servers do"):
        PPOPhase(plain.shared, plain.prompts, plain.prompt_ids, generator, settings(), seed=0, ahead=True)


def test_a_rollout_judges_the_weights_that_sampled_it() -> None:
    metrics = {"ppo/proxy_score": 1.0, "ppo/kl_coefficient": 0.1, "ppo/reference_kl": 2.0}
    assert judge_rollout(4, metrics) == (3, 0.8)
    assert judge_rollout(4, metrics | {"ppo/staleness": 1.0}) == (2, 0.8)
    assert judge_rollout(4, metrics | {"ppo/staleness": 1.0, "ppo/witness_score": 1.6}) == (2, pytest.approx(1.1))
