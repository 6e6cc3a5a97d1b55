"""The memory and time needs of training a reward model."""

from triphase.footprints.cost import CostModel
from triphase.footprints.moments import Footprint
from triphase.footprints.work import Shape
from triphase.footprints.workload import largest, shapes_of

# The share of the rankings that a member of an ensemble trains on (1 − 1/e).
_REWARD_SHARE = 0.63


def reward_footprint(cost: CostModel) -> Footprint:
    """Phase 2."""
    settings, work, groups = cost.settings.reward, cost.work, cost.load.groups
    found, packs = Footprint("reward"), work.packs
    rows = groups if packs else groups.flat()
    size = settings.batch_size if packs else settings.batch_size * round(rows.count / groups.count)

    def shapes_for(count: int) -> list[Shape]:
        limit = settings.tokens_at_once
        return list(
            shapes_of(rows, batch_size=count, max_tokens=limit, on_card=work.on_card, packed=packs, scored=True)
        )

    several = _REWARD_SHARE * settings.ensemble.members if settings.ensemble.members > 1 else 1.0
    passes = several if not settings.witness else (several + 1) / 2  # each on half of the rankings
    static = cost.static(adapters=1 + settings.ensemble.members + settings.witness, trained=work.adapter_numbers)
    shapes = shapes_for(size)
    shape, wide = largest(shapes), largest(shapes_for(len(rows.sampled)))
    fits = float(settings.head_penalty is not None)
    static = cost.with_trunk(found, static, rows, settings.epochs + fits, wide, settings.tokens_at_once, packed=packs)
    traced = work.reward(shape, train=True)
    found.moments.append(cost.trained("update", static, traced, shape, head=False))
    tokens = sum(each.tokens for each in shapes) * rows.scale
    found.compute("training", traced, shape, tokens * settings.epochs * passes)
    looked = work.reward(wide, train=False)
    found.moments.append(cost.looked("scoring", static, looked, work.trunk(wide), wide, head=False))
    found.compute("forward", looked, wide, tokens * (fits + 1))
    if settings.length == "two-heads":  # all rankings of a step are scored before its gradients
        found.compute("forward", work.reward(shape, train=False), shape, tokens * settings.epochs * passes)
    cost.stepped(found, static, work.adapter_numbers, 0)
    return found
