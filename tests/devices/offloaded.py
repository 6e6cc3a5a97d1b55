"""Phases with `model.offload` on a fake card: what is offloaded when, how much is copied, and the same results."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from tests.devices import card, steps

from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.phases import ppo as ppo_module
from triphase.phases.ppo import PPOPhase
from triphase.training.step import Updater


def found_on(device: torch.device) -> dict[str, Any]:
    """Two iterations of PPO, with an adapter and with full weights, and a step of the other phases, with and
    without."""
    full = {"method": "full"}
    return {
        "ppo": [iterations(device, offload) for offload in (False, True)],
        "ppo-full": [iterations(device, offload, **full) for offload in (False, True)],
        "ppo-mix-of-ranks": offloaded_layers(steps.shared_on(device), ranks=2),
        "sft": [metrics_of(steps.sft(offloading(steps.shared_on(device), offload))) for offload in (False, True)],
        "reward": [metrics_of(steps.reward(offloading(steps.shared_on(device), offload))) for offload in (False, True)],
    }


def offloading(shared: SharedModel, offload: bool) -> SharedModel:
    shared.loaded = replace(shared.loaded, offload=offload)
    return shared


def metrics_of(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "seconds" not in name}


def offloaded_layers(shared: SharedModel, *, ranks: int) -> int:
    """Tensors of layers that rest in the updates of several processes."""
    phase = steps.ppo_phase(offloading(shared, True))
    roles = ppo_module.RoleOffloading(shared, phase.policy, phase.settings, ranks=ranks)
    roles.before_updates(phase.generator)
    return sum(tensor.device.type == "cpu" for tensor in tensors_of(shared)["trunk"])


def tensors_of(shared: SharedModel) -> dict[str, list[torch.Tensor]]:
    """The tensors of each role."""
    backbone = shared.backbone
    lowest, highest = backbone.layers[: backbone.trunk_layers], backbone.layers[backbone.trunk_layers :]
    base = {name: [p for n, p in part.named_parameters() if ".lora_" not in n] for name, part in
            (("trunk", lowest), ("upper", highest))}  # fmt: skip
    names = [name for name in (REFERENCE, REWARD, POLICY) if shared.adapters.has(name)]
    return base | {name: list(shared.adapters.parameters(name).values()) for name in names}


def iterations(device: torch.device, offload: bool, **changes: Any) -> dict[str, Any]:
    """Two iterations: metrics, counts, and the device of each role while sampling, in the updates and afterwards."""
    shared = offloading(steps.shared_on(device), offload)
    shared.stepper(None)
    phase = steps.ppo_phase(shared, **changes)
    phase.policy.model.stepper(None)
    seen: dict[str, dict[str, str]] = {}
    with noting(phase, shared, seen), card.watching() as watch:
        metrics = [metrics_of(phase.advance(number)) for number in range(2)]
    phase.finish()
    seen["end"] = devices(shared, phase)
    return {
        "metrics": metrics,
        "seen": seen,
        "uploads": watch.uploads,
        "downloads": watch.waits["to the processor"],
        "trained": len(phase.state.updater.parameters),
        "tensors": {name: len(each) for name, each in tensors_of(shared).items()},
        "steps": phase.state.updater.step_count,
    }


def devices(shared: SharedModel, phase: PPOPhase) -> dict[str, str]:
    """The devices of each role's tensors, and of Adam's moments."""
    state = phase.state.updater._optimizer.state
    moments = [each[name] for each in state.values() for name in ("exp_avg", "exp_avg_sq") if name in each]
    found = tensors_of(shared) | {"moments": moments}
    return {name: "+".join(sorted({each.device.type for each in tensors})) for name, tensors in found.items()}


@contextmanager
def noting(phase: PPOPhase, shared: SharedModel, seen: dict[str, dict[str, str]]) -> Iterator[None]:
    """Note the devices in each stage of the last iteration."""
    sampled, score, step = phase.rollouts.sampled, phase._score, Updater.step
    accumulate = ppo_module.accumulate_gradients

    def noted(stage: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen[stage] = devices(shared, phase)
            return real(*args, **kwargs)

        return call

    phase.rollouts.sampled = noted("sampling", sampled)  # type: ignore[method-assign]
    phase._score = noted("scoring", score)  # type: ignore[method-assign]
    ppo_module.accumulate_gradients = noted("updates", accumulate)  # type: ignore[attr-defined]
    Updater.step = noted("step", step)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ppo_module.accumulate_gradients = accumulate  # type: ignore[attr-defined]
        Updater.step = step  # type: ignore[method-assign]
