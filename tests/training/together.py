"""Results of two processes compared with one: a program that each rank runs and that writes the differences.

    RANK=… WORLD_SIZE=2 … python -m tests.training.together DIRECTORY

One launch holds many comparisons, because nearly all of it is imports. Rank 0 does each phase again alone.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import torch
from tests.devices.steps import encoded_of, ppo_phase, prompts_of, shared_on
from tests.phases.test_reward import groups_of, pairs_of
from tests.small import Lines, samples
from torch import nn

from triphase.errors import RunError, ServerAway, TrainingError
from triphase.models.policies import policy_for
from triphase.phases.engine_trial import EngineTrial
from triphase.phases.ppo import PPOPhase
from triphase.phases.rank_sharing import LedGenerator, LedScorer, SharedGenerator
from triphase.phases.reward import RewardPhase
from triphase.phases.sft import SupervisedPhase
from triphase.phases.sft_mix import SFTMix, visits
from triphase.rewards.model import ModelScorer
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Generated, Request
from triphase.runs import engine_choice
from triphase.settings.phases import OptimizerSettings, RewardSettings, SupervisedSettings
from triphase.settings.ppo import PPOSettings
from triphase.training.digests import digest_of
from triphase.training.distributed.environment import place_in
from triphase.training.distributed.joining import joined
from triphase.training.distributed.types import Strategy
from triphase.training.loop import LoopOptions, Phase, run_loop
from triphase.training.stopping import Stopped, StopRequest

OPTIMIZER = OptimizerSettings(learning_rate=1e-3, head_learning_rate=2e-3, schedule="linear", max_gradient_norm=0.5)
OF_WHOLE = OptimizerSettings(learning_rate=1e-4, schedule="linear", max_gradient_norm=0.5, adam_epsilon=1e-5)
Make = Callable[[Strategy], Phase]


def sft(strategy: Strategy, method: str = "lora") -> SupervisedPhase:
    """Thirteen visits in steps of four: the last step has one sample, so one of two ranks has none."""
    shared = shared_on("cpu", strategy=strategy)
    made = encoded_of(shared)
    order = [*range(10), 3, 1, 7]
    settings = SupervisedSettings(batch_size=4, optimizer=OPTIMIZER, method=method, microbatch_tokens=30)
    return SupervisedPhase(shared, made, order, samples(5, seed=3), settings, strategy=strategy)


def reward(strategy: Strategy) -> RewardPhase:
    """Seven visits of rankings in steps of three, one of them twice in a step, with the fit of the head before."""
    groups, heldout = groups_of(4), groups_of(3, seed=9)
    settings = RewardSettings(batch_size=3, epochs=1.75, optimizer=OPTIMIZER, microbatch_tokens=60, centering=0.01)
    pairs = ([pairs_of(group) for group in each] for each in (groups, heldout))
    trained, kept = pairs
    shared = shared_on("cpu", strategy=strategy)
    return RewardPhase(shared, groups, trained, heldout, kept, settings, seed=0, strategy=strategy)


def ppo(strategy: Strategy, **changes: Any) -> PPOPhase:
    """PPO whose generation, scores and updates are shared out, and the demonstrations that are mixed in."""
    values = {"epochs": 3, "entropy_coefficient": 0.01, "optimizer": OPTIMIZER}
    plain = ppo_phase(shared_on("cpu"), **values).settings.model_dump(exclude_unset=True)
    settings, shared = PPOSettings.model_validate(plain | changes), shared_on("cpu", strategy=strategy)
    mix = None
    if settings.sft_mix:
        shown = encoded_of(shared)
        order = [7 * visit % len(shown) for visit in range(visits(settings))]
        mix = SFTMix(shared, shown, order, settings, strategy=strategy)
    prompts, ids = prompts_of(shared)
    shard = partial(strategy.shard, beside=True) if strategy.shards and settings.method == "full" else None
    strategy.barrier()
    policy = policy_for(shared, settings.method, shard)
    generator: Any = LocalGenerator(policy.model, adapter=policy.adapter, batch_size=8)
    scorer: Any = ModelScorer(shared, max_tokens=60, strategy=strategy)
    if strategy.world > 1:
        generator = SharedGenerator(generator, strategy, shared.device)
        scorer = LedScorer(scorer, [], strategy) if strategy.is_lead else LedScorer(None, [scorer], strategy)
    given: dict[str, Any] = {"scorer": scorer, "policy": policy, "mix": mix, "strategy": strategy}
    phase = PPOPhase(shared, prompts, ids, generator, settings, seed=0, **given)
    # One process reads the trunk's states from sampling, several compute them: the same up to rounding, which the
    # optimizer's first steps enlarge. What is compared here is the division of the work.
    phase.rollouts._with_trunk = False
    return phase


PHASES: dict[str, Make] = {
    "sft": sft,
    "sft-full": lambda strategy: sft(strategy, "full"),
    "reward": reward,
    "ppo": ppo,
    # Two prompts a rollout and one in a minibatch: one rank has no row of it.
    "ppo-groups": lambda strategy: ppo(strategy, responses_per_prompt=4, advantage_estimator="rloo"),
    # Three prompts in a minibatch: two and one.
    "ppo-packed": lambda strategy: ppo(strategy, responses_per_prompt=4, batch_size=12, minibatch_size=12),
    # Demonstrations in each step, and a penalty that counts from a copy of the policy.
    "ppo-mixed": lambda strategy: ppo(strategy, sft_mix=0.7, reference_reset_every=1),
    "ppo-critic": lambda strategy: ppo(strategy, critic="adapter", critic_warmup=1, score_normalization="running"),
}
OF_PARTS: dict[str, Make] = {
    # A copy of the base, beside it; the value head reads the copy, the critic's adapter the base.
    "ppo-full": lambda strategy: ppo(strategy, method="full", optimizer=OF_WHOLE, epochs=1, sft_mix=0.7),
    "ppo-full-critic": lambda strategy: ppo(
        strategy, method="full", optimizer=OF_WHOLE, critic="adapter", critic_warmup=1, iterations=2, epochs=1
    ),
}
"""Those of a sharded base alone: with replicas a policy with weights of its own is like one with an adapter."""


def carried(make: Make, strategy: Strategy, directory: Path, stop_after: int | None = None) -> dict[str, Any]:
    """A phase to its end (or a stop), with its gradients before each step."""
    gradients: list[dict[str, torch.Tensor]] = []
    summed = strategy.sum_gradients

    def watched(parameters: Any) -> None:
        summed(parameters)
        there = {name: each.grad.clone() for name, each in parameters.items() if each.grad is not None}
        gradients.append(strategy.whole(there))

    strategy.sum_gradients = watched  # type: ignore[method-assign]
    stop, lines = StopRequest(), Lines()

    def on_step(metrics: Any) -> None:
        # On one rank alone: all stop.
        stop.asked = strategy.rank == strategy.world - 1 and stop_after == phase.state.position

    try:
        phase = make(strategy)
        start = phase.state.updater.digest()
        options = LoopOptions(directory, lines, keep=1, stop=stop, on_step=on_step)
        lines.rows = {step: {} for step in range(1, 1 + _done(directory))}
        try:
            run_loop(phase, options)
        except Stopped:
            pass
        tensors = {name: value.clone() for name, value in phase.state.updater.tensors().items()}
        return {"start": start, "metrics": lines.plain(), "gradients": gradients, "tensors": tensors, "phase": phase}
    finally:
        strategy.sum_gradients = summed  # type: ignore[method-assign]


def _done(directory: Path) -> int:
    return max((int(path.name) for path in (directory / "checkpoints").glob("[0-9]*")), default=0)


EXTREMES = ("ppo/ratio_max",)
"""Metrics of the one token with the greatest value, so that nothing averages out its rounding."""


def apart(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    """The greatest differences of two runs of a phase."""
    rows = list(zip(first["metrics"].values(), second["metrics"].values(), strict=True))
    assert [list(a) for a, _ in rows] == [list(b) for _, b in rows]
    grads = list(zip(first["gradients"], second["gradients"], strict=True))
    assert [list(a) for a, _ in grads] == [list(b) for _, b in grads]
    changes = [(name, abs(a[name] - b[name]) / max(1.0, abs(a[name]))) for a, b in rows for name in a]
    return {
        "metrics": max(change for name, change in changes if name not in EXTREMES),
        "extremes": max((change for name, change in changes if name in EXTREMES), default=0.0),
        "gradients": max((float((a[name] - b[name]).abs().max()) for a, b in grads for name in a), default=0.0),
        "parameters": _furthest(first["tensors"], second["tensors"]),
        "steps": float(len(grads)),
    }


def _furthest(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert list(first) == list(second)
    return max(float((first[name] - second[name]).abs().max()) for name in first if name.startswith("parameter."))


def equality(strategy: Strategy, folder: Path) -> dict[str, Any]:
    """Every phase by both ranks, and by rank 0 alone."""
    found: dict[str, Any] = {}
    for name, make in PHASES.items():
        both = carried(make, strategy, folder / name / "two")
        starts, ends = strategy.gather(both["start"]), strategy.gather(digest_of(both["tensors"]))
        found[name] = {"one start": len(set(starts)) == 1, "one end": len(set(ends)) == 1}
        if strategy.is_lead:
            alone = carried(make, Strategy(), folder / name / "one")
            found[name] |= apart(alone, both) | {"same start": alone["start"] == both["start"]}
    return found


def change_of_world(strategy: Strategy, folder: Path) -> dict[str, Any]:
    """Both ranks, rank 0 alone, both again: from checkpoint to checkpoint."""
    found: dict[str, Any] = {}
    names = {"sft": 1, "sft-full": 1, "reward": 1, "ppo": 1, "ppo-mixed": 1, "ppo-full": 1}
    for name, steps in [(name, steps) for name, steps in names.items() if name in PHASES]:
        straight = carried(PHASES[name], strategy, folder / name / "straight")
        there = folder / name / "changing"
        carried(PHASES[name], strategy, there, stop_after=steps)
        if strategy.is_lead:
            carried(PHASES[name], Strategy(), there, stop_after=steps + 1)
        strategy.barrier()
        at = _done(there)
        strategy.barrier()
        again = carried(PHASES[name], strategy, there)
        found[name] = {
            "stopped at": at,
            "parameters": _furthest(straight["tensors"], again["tensors"]),
            "files": sorted(path.name for path in (there / "checkpoints").glob("*/*")),
        }
    return found


def not_finite(strategy: Strategy, folder: Path) -> dict[str, Any]:
    """A loss, or a gradient alone, that is not finite on rank 1: both ranks skip the step."""
    phase = sft(strategy)
    before = digest_of(phase.state.updater.parameters)
    real = phase._loss
    if strategy.rank == 1:
        phase._loss = lambda *given: real(*given) * float("nan")  # type: ignore[method-assign]
    first = phase.advance(0)
    phase._loss = real  # type: ignore[method-assign]
    phase.state.updater.discard()
    for parameter in phase.state.updater.parameters.values():
        parameter.grad = torch.full_like(parameter, float("inf") if strategy.rank == 1 else 1.0)
    second = phase.state.updater.step()
    after = digest_of(phase.state.updater.parameters)
    last, error = phase.advance(2), ""
    phase.state.updater.most_skipped_in_a_row = 1
    try:
        phase.state.updater.skip_step(["the loss"])
    except TrainingError as raised:
        error = str(raised)
    return {
        "loss is nan": first["sft/loss"] != first["sft/loss"],
        "skipped": [first["sft/skipped_steps"], float(second.skipped), last["sft/skipped_steps"]],
        "unchanged": before == after,
        "named": list(second.nonfinite),
        "error": error,
    }


def engines(strategy: Strategy, folder: Path) -> dict[str, Any]:
    """A trial by both ranks, whose servers are slower, faster or away, as rank 0 alone can see."""
    settings = PPOSettings(batch_size=4, minibatch_size=4, max_response_tokens=4)
    found: dict[str, Any] = {}
    for name, pause in {"slower": 0.5, "faster": 0.0, "away": None}.items():
        said: list[str] = []
        rollouts = SimpleNamespace(tries_both=True, servers=0, by_servers=True)
        run: Any = SimpleNamespace(
            settings=SimpleNamespace(rollouts=rollouts), strategy=strategy, path=folder, say=said.append
        )
        run.raise_if_stop_requested = lambda: None
        own = SharedGenerator(_Paused(0.01), strategy, torch.device("cpu"))
        opened = {False: own, True: _Paused(pause) if strategy.is_lead else None}

        @contextmanager
        def opening(*_: Any, by_servers: bool, opened: Any = opened) -> Iterator[Any]:
            yield opened[by_servers]

        with (
            patch.multiple(engine_choice, generator_of=opening, shared_generator=opening, SECONDS=0.2),
            engine_choice.chosen_generator(
                run, Mock(), "ppo", 4, folder, EngineTrial([(1,), (2,)], settings, seed=0)
            ) as (generator, choice),
        ):
            written = generator.generate([Request((7,), 5)], temperature=1.0, max_response_tokens=2)
        assert choice is not None
        rates = [choice.engine, sorted(choice.rates), choice.reason]
        found[name] = {"choice": rates, "written": list(written[0].ids), "said": len(said)}
    return found


class _Paused:
    """Samples two tokens, after a pause; None is a server that is away."""

    def __init__(self, pause: float | None) -> None:
        self._pause = pause

    def generate(self, requests: list[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        if self._pause is None:
            raise ServerAway("nobody is there")
        time.sleep(self._pause)
        return [Generated((request.seed % 7, 1), True) for request in requests]


def primitives(strategy: Strategy, folder: Path) -> dict[str, Any]:
    """What the strategy itself promises."""
    rank = strategy.rank
    absent, here, both = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    here.grad = torch.tensor([1.0, 2.0]) if rank == 1 else None
    both.grad = torch.full((2,), float(rank + 1))
    strategy.sum_gradients({"absent": absent, "here": here, "both": both})
    ints, floats = torch.zeros(2, dtype=torch.int64), torch.zeros(2)
    ints[rank], floats[rank] = 2**40 + rank, 0.5
    strategy.sum_tensors([ints, floats])
    try:
        strategy.require_same("the weights", str(rank))
        refusal = ""
    except RunError as error:
        refusal = str(error)
    servers = LedGenerator(_Servers() if strategy.is_lead else None, strategy)
    written = servers.generate([Request((1,), 5), Request((2,), 6)], temperature=1.0, max_response_tokens=3)
    return {
        "absent": absent.grad is None,
        "here": None if here.grad is None else here.grad.tolist(),
        "both": None if both.grad is None else both.grad.tolist(),
        "ints": ints.tolist(),
        "floats": floats.tolist(),
        "total": strategy.total({"a": float(rank + 1), "b_max": float(-rank)}),
        "any": [strategy.any(rank == 1), strategy.any(False)],
        "lead": strategy.from_lead(lambda: {"rank": rank, "nan": [1e-300, 0.1]}),
        "gather": strategy.gather([rank, "x"]),
        "refusal": refusal,
        "servers": [[list(each.ids), each.finished] for each in written],
    }


class _Servers:
    def generate(self, requests: list[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        return [Generated((request.seed, 1), request.seed == 5) for request in requests]


def main() -> None:
    """Every comparison, and one JSON file of each rank."""
    torch.set_num_threads(1)
    folder, place = Path(sys.argv[1]), place_in(os.environ)
    with joined(place, on_gpu=False, timeout_seconds=60) as strategy:
        found = {
            each.__name__: each(strategy, folder / each.__name__)
            for each in (primitives, engines, equality, change_of_world, not_finite)
        }
        (folder / f"{strategy.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
