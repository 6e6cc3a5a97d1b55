"""What PPO needs, and each variant of it."""

from collections.abc import Mapping
from functools import partial

from triphase.footprints.cost import CostModel, tokens_of
from triphase.footprints.moments import ADAPTERS, BASE, KEPT_ROWS, TRUNK, Footprint
from triphase.footprints.work import Shape
from triphase.footprints.workload import Lengths, largest, shapes_of
from triphase.models.tracing import Traced
from triphase.settings.phase_names import ppo_phase
from triphase.settings.ppo import PPOSettings


def ppo_footprint(cost: CostModel, variant: str | None) -> Footprint:
    """Phase 3, or a variant of it."""
    settings, work = cost.settings.ppo_of(variant), cost.work
    found = Footprint(ppo_phase(variant))
    critics, whole = int(settings.critic == "adapter"), settings.method == "full"
    resets = int(settings.reference_reset_every is not None)
    trained = (work.base_numbers if whole else work.adapter_numbers) + critics * work.adapter_numbers
    by_servers = cost.settings.rollouts.by_servers
    static = cost.static(adapters=2 + cost.scorers() + critics + resets, trained=trained, by_servers=by_servers)
    if whole:  # the policy is a copy of the base, with the reference's adapter on it
        static[BASE] += work.base_bytes
    prompts, limit = cost.load.prompts, settings.max_response_tokens
    episodes = settings.batch_size * settings.iterations
    by_servers_only = by_servers and not cost.settings.rollouts.tries_both
    records = work.records_trunk and not (whole or by_servers_only) and cost.ranks == 1
    recorded = work.boundary_bytes(settings.batch_size * (max(prompts.prompts) + limit)) if records else 0.0
    sampling, updating = (_offloaded(cost, settings, stage) for stage in ("sampling", "updates"))
    kept = cost.sampled(
        found,
        {**_without(static, sampling), TRUNK: recorded},
        prompts,
        episodes,
        settings.batch_size,
        limit,
        by_servers=by_servers_only,
    )
    share = settings.responses_per_prompt if work.packs else 1  # episodes in a row
    rollout = prompts.answered(settings.responses_per_prompt, [limit])
    rollout = rollout if share > 1 else rollout.flat()
    shape = _largest_shape(rollout, settings, share, on_card=work.on_card)
    # Boundary states of a whole rollout, padded to its longest row.
    longest = max(sum(record) for record in rollout.sampled)
    static = {**static, TRUNK: work.boundary_bytes(settings.batch_size // share * longest), KEPT_ROWS: kept}
    static_in_updates = _without(static, {**updating, KEPT_ROWS: kept * cost.settings.model.offload})
    tokens = tokens_of(rollout) / rollout.count * episodes / share
    trunk = work.trunk(shape)
    acting = partial(work.policy, shape, with_values=settings.has_critic)
    upper = acting(train=False, with_entropy=True)
    scored = acting(train=False, with_entropy=True, whole=True) if whole else upper
    found.moments.append(cost.looked("scoring", static, scored, trunk, shape))
    # The policy and its reference; the reward model, a critic with its own adapter, and a reset reference.
    passes = scored * 2 + upper * (cost.scorers() + critics + resets)
    found.compute("forward", passes if records else trunk + passes, shape, tokens)
    traced = acting(train=True, with_entropy=settings.entropy_coefficient > 0, whole=whole)
    if critics:  # both passes are kept for one backward pass
        second = work.reward(shape, train=True)
        peak = max(traced.peak, traced.kept + second.peak)
        traced = Traced(peak, traced.kept + second.kept, traced.flops + second.flops)
    found.moments.append(cost.trained("update", static_in_updates, traced, shape))
    found.compute("training", traced, shape, tokens * settings.epochs)
    if settings.sft_mix and cost.load.demonstrations.count:
        _mix(cost, found, static_in_updates, settings)
    cost.stepped(found, static_in_updates, trained, work.largest_numbers if whole else 0)
    return found


def _offloaded(cost: CostModel, settings: PPOSettings, stage: str) -> dict[str, float]:
    """The bytes by part that are on the host in a stage (`phases.role_offloading`)."""
    work, whole, on_base = cost.work, settings.method == "full", settings.critic == "adapter"
    if not cost.settings.model.offload:
        return {}
    resets = int(settings.reference_reset_every is not None)
    adapters = 1 + cost.scorers() + resets
    layers = work.layers if whole and not on_base else work.trunk_layers
    if settings.sft_mix > 0 or cost.ranks > 1 or (stage == "sampling" and not whole):
        layers = 0
    return {ADAPTERS: adapters * 4.0 * work.adapter_numbers, BASE: layers * work.layer_bytes}


def _without(static: Mapping[str, float], offloaded: Mapping[str, float]) -> dict[str, float]:
    return {part: size - offloaded.get(part, 0.0) for part, size in static.items()}


def _mix(cost: CostModel, found: Footprint, static: dict[str, float], settings: PPOSettings) -> None:
    """Add the demonstrations of each step, whose trunk states are computed at each visit."""
    work, shown = cost.work, cost.load.demonstrations
    shapes = list(
        shapes_of(shown, batch_size=settings.minibatch_size, max_tokens=settings.tokens_at_once, on_card=work.on_card)
    )
    shape = largest(shapes)
    traced = work.policy(shape, train=True, whole=settings.method == "full", again=True)
    visited = settings.iterations * settings.steps_per_iteration * settings.minibatch_size
    tokens = sum(each.tokens for each in shapes) / len(shown.sampled) * visited
    found.moments.append(cost.trained("update on demonstrations", static, traced, shape))
    found.compute("forward", work.trunk(shape), shape, tokens)
    found.compute("training", traced, shape, tokens)


def _largest_shape(rollout: Lengths, settings: PPOSettings, share: int, *, on_card: bool) -> Shape:
    """The largest microbatch: minibatches of the longest prompts, with responses of the maximum length."""
    rows = settings.minibatch_size // share
    longest = rollout.repeated(rows)
    return largest(
        shapes_of(longest, batch_size=rows, max_tokens=settings.tokens_at_once, on_card=on_card, packed=share > 1)
    )
