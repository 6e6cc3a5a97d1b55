"""The plan of a run on a described machine: the memory on each GPU, the time, and the cost.

    seconds = Σ_kind operations / (rate · share)
            + decoding steps · bytes that a step reads / (bandwidth · share)
            + passes · gathered weights / link

The shares are what remains of a GPU's data sheet. Measured on one GPU (`SOURCE`); elsewhere a guess.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from triphase.datacheck.agenda import todo
from triphase.footprints.cost import CostModel
from triphase.footprints.moments import (
    ADAPTERS,
    BASE,
    CACHE,
    GRADIENTS,
    KEPT_ROWS,
    MOMENTS,
    PROCESS,
    TEMPORARY,
    Footprint,
    Moment,
)
from triphase.footprints.server_memory import server_bytes, server_notes
from triphase.footprints.work import Work
from triphase.footprints.workload import Lengths, Workload
from triphase.planning.every_phase import footprints_of
from triphase.planning.machine import Machine
from triphase.planning.passes import sized
from triphase.planning.plan import opened, traceable, work_of, workload
from triphase.planning.remedies import remedies_of, trains_whole
from triphase.settings.parallel import require_work
from triphase.settings.phase_names import section_of
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import RunSettings
from triphase.tokens.template import Template

SOURCE = "one H200 with the shape of Llama 1B (docs/performance.md)"
SHARES = {"training": 0.145, "forward": 0.145, "decoding": 0.12}
"""Of the dense bfloat16 rate in training and plain forward passes, of the memory's bandwidth in decoding."""

Strategy = Literal["one process", "replicated", "fsdp2"]
_CONTEXT = 0.6e9
"""Memory that CUDA and its libraries take before anything is allocated."""
_ROOM = 0.95
"""Share of a GPU's memory that may be planned with; the rest is for what no plan covers."""
ALONE = ("sampling", "evaluation")
"""Phases that rank 0 runs while the others wait."""


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """The result, for one rank.

    Attributes:
        strategy: how the ranks share the model; the simplest that fits, or else the one with the lowest memory.
        phases: footprints of one rank. gathered: bytes of weights that a rank receives in a pass.
        checkpoint: bytes of one checkpoint by phase.
        notes: choices of the plan itself (`microbatch_tokens: auto`).
    """

    machine: Machine
    strategy: Strategy
    phases: list[Footprint]
    gathered: float
    checkpoint: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> float:
        """Bytes of a GPU that may be planned with."""
        return self.machine.memory * _ROOM

    @property
    def too_large(self) -> list[Footprint]:
        """Phases that do not fit."""
        return [each for each in self.phases if each.peak.total > self.allowed]

    def tokens(self, found: Footprint, kind: str) -> float:
        """Tokens of one kind that all GPUs process together."""
        return found.tokens.get(kind, 0.0) * (1 if found.phase in ALONE else self.machine.gpus)

    def hours(self, found: Footprint) -> float:
        """The estimated time of a phase."""
        card, parts = self.machine.card, found.peak.parts
        seconds = sum(count / (card.flops * SHARES[kind]) for kind, count in found.flops.items() if kind != "decoding")
        # A step reads all layers, also those that it has just gathered.
        read = parts[BASE] + self.gathered + parts[ADAPTERS] + max(each.parts.get(CACHE, 0.0) for each in found.moments)
        seconds += found.passes.get("decoding", 0.0) * read / (card.bandwidth * SHARES["decoding"])
        # All weights are gathered once in a forward pass or a step, and once more in a backward pass.
        times = {"training": 2.0, "forward": 1.0, "decoding": 0.0 if found.by_servers else 1.0}
        gathers = sum(count * times[kind] for kind, count in found.passes.items())
        return (seconds + gathers * self.gathered / card.link) / 3600

    def cost(self, found: Footprint) -> float | None:
        """The price of all GPUs in that time; None without a price."""
        price = self.machine.price
        return None if price is None else price * self.machine.gpus * self.hours(found)

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "gpus": self.machine.gpus,
            "card": self.machine.card.name,
            "allowed_bytes": self.allowed,
            "strategy": self.strategy,
            "notes": list(self.notes),
            "phases": {
                found.phase: {
                    **found.at_peak(),
                    "tokens": {kind: self.tokens(found, kind) for kind in found.tokens},
                    "hours": self.hours(found),
                    "cost": self.cost(found),
                    "checkpoint_bytes": self.checkpoint.get(found.phase),
                }
                for found in self.phases
            },
        }


def plan_for(settings: RunSettings, machine: Machine) -> MachinePlan:
    """Plan a run on ``machine``: replicated if the base fits on every GPU, else sharded.

    Raises:
        SettingsError: a step has fewer prompts or rows than there are GPUs.
        ModelError, DataError: as `make_plan`.
    """
    gpus, memory = machine.gpus, machine.memory
    share = share_of(settings, gpus)
    config, tokenizer = opened(settings.model)
    load = _load_of(workload(settings, Template.of(tokenizer, settings.model)), gpus)
    exact = settings.model.dtype == "float32" or (settings.sft_method == "full" and settings.model.dtype == "auto")
    with traceable(settings):
        work = work_of(settings, config, torch.float32 if exact else torch.bfloat16, on_card=True)
        servers = server_bytes(settings, work, card=memory, ranks=gpus)
        cost = CostModel(share, work, load, process_bytes=0.0, server_bytes=servers, card_bytes=memory, ranks=gpus)
        notes = list[str]()
        if gpus == 1:
            cost.settings, notes = sized(cost, memory * _ROOM, on_card=True)
        planned = footprints_of(cost)
    wanted = todo(settings)
    phases = [each for each in planned if _step(each.phase) in wanted]
    # A checkpoint contains float32 weights and two moments of each, as gradients are float32.
    trained = {each.phase: max(one.parts.get(GRADIENTS, 0.0) for one in each.moments) for each in phases}
    checkpoint = {phase: 3.0 * size for phase, size in trained.items() if size}
    plans = [
        _with(machine, strategy, phases, cost.settings, work, checkpoint)
        for strategy in strategies_for(machine, settings)
    ]
    return replace(
        next((plan for plan in plans if not plan.too_large), plans[-1]),
        notes=(*notes, *server_notes(settings, servers, on_card=True)),
    )


def share_of(settings: RunSettings, ranks: int) -> RunSettings:
    """The settings with the share that each of ``ranks`` has in every step.

    Raises:
        SettingsError: a step has too little work for all of them.
    """
    require_work(settings, ranks)
    sft, reward = settings.sft, settings.reward
    variants = {
        name: {**values, **_share_of_ppo(settings.ppo_of(name), ranks)} for name, values in settings.variants.items()
    }
    return settings.model_copy(
        update={
            "sft": sft.model_copy(update={"batch_size": -(-sft.batch_size // ranks)}),
            "reward": reward.model_copy(update={"batch_size": -(-reward.batch_size // ranks)}),
            "ppo": settings.ppo.model_copy(update=_share_of_ppo(settings.ppo, ranks)),
            "variants": variants,
        }
    )


def _share_of_ppo(settings: PPOSettings, ranks: int) -> dict[str, Any]:
    each = settings.responses_per_prompt
    minibatch = each * -(-(settings.minibatch_size // each) // ranks)
    return {"minibatch_size": minibatch, "batch_size": minibatch * (settings.batch_size // settings.minibatch_size)}


def _load_of(load: Workload, ranks: int) -> Workload:
    """A rank's share; what rank 0 does alone (sampling for people, the evaluation) stays whole."""

    def part(lengths: Lengths) -> Lengths:
        return Lengths(lengths.sampled, -(-lengths.count // ranks))

    return Workload(
        part(load.demonstrations),
        load.heldout_demonstrations,
        -(-load.visits // ranks),
        load.prompts,
        load.heldout_prompts,
        part(load.groups),
    )


def strategies_for(machine: Machine, settings: RunSettings) -> tuple[Strategy, ...]:
    """The strategies that the settings allow, the simplest first; a base is divided if it is frozen, and not quantized,
    off-loaded or compiled."""
    chosen = settings.parallel.strategy
    if machine.gpus == 1:
        return ("one process",)
    if chosen != "auto":
        return (chosen,)
    is_frozen = settings.sft_method != "full" and not settings.trains_whole
    model = settings.model  # settings with which fsdp2 is refused (`settings.conflicts`)
    is_whole = model.quantization is not None or model.offload or model.compile_layers
    return ("replicated", "fsdp2") if is_frozen and not is_whole else ("replicated",)


def _with(
    machine: Machine,
    strategy: Strategy,
    phases: list[Footprint],
    settings: RunSettings,
    work: Work,
    checkpoint: dict[str, float],
) -> MachinePlan:
    ranks, size = machine.gpus, work.dtype.itemsize
    layer = work.layer_numbers * size
    # A rank keeps a part of the layers, and the layer that it computes, which exists twice while it is gathered.
    given = work.layers * layer * (ranks - 1) / ranks

    def moment(each: Moment, *, whole: bool) -> Moment:
        parts = {**each.parts, PROCESS: _CONTEXT}
        if each.name == "checkpoint":
            parts[TEMPORARY] = 0.0  # its bytes are in the host's memory
        if strategy == "fsdp2":
            models = round(parts[BASE] / work.base_bytes)  # the base, and a policy with weights of its own
            parts |= {BASE: parts[BASE] + 2 * layer - models * given, KEPT_ROWS: 0.0}  # no step is captured
            if whole:  # each rank steps its rows; a whole gradient stays until the step
                parts[MOMENTS] -= 2 * given
        return Moment(each.name, parts, each.shape)

    made = [
        Footprint(
            each.phase,
            [moment(one, whole=trains_whole(each.phase, settings)) for one in each.moments],
            each.flops,
            each.tokens,
            each.passes,
            by_servers=each.by_servers,
        )
        for each in phases
    ]
    for each in made:
        each.remedies = remedies_of(each, settings, adapted_layers=work.adapted_layers)
    gathered = given if strategy == "fsdp2" else 0.0
    return MachinePlan(machine, strategy, made, gathered, checkpoint)


def _step(phase: str) -> str:
    return section_of(phase)
