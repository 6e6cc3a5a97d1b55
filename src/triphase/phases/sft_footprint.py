"""The memory and time needs of supervised fine-tuning."""

from triphase.footprints.cost import CostModel, tokens_of
from triphase.footprints.moments import GRADIENTS, Footprint
from triphase.footprints.workload import largest, shapes_of
from triphase.models.tracing import Traced
from triphase.phases.heldout import EVALUATIONS_PER_PHASE


def sft_footprint(cost: CostModel) -> Footprint:
    """Phase 1."""
    settings, work, load = cost.settings.sft, cost.work, cost.load
    found, whole, lengths = Footprint("sft"), settings.method == "full", load.demonstrations
    trained = work.base_numbers * work.dtype.itemsize / 4 if whole else work.adapter_numbers  # as float32
    static = cost.static(adapters=1, trained=trained)
    tokens_at_once = settings.tokens_at_once
    shapes = list(shapes_of(lengths, batch_size=settings.batch_size, max_tokens=tokens_at_once, on_card=work.on_card))
    shape = largest(shapes)
    several = len(shapes) > -(-len(lengths.sampled) // settings.batch_size)
    traced = work.policy(shape, train=True, whole=whole, again=several)
    if not whole:
        visits = load.visits / lengths.count
        static = cost.with_trunk(found, static, lengths, visits, shape, tokens_at_once, packed=False)
    held = load.heldout_demonstrations
    if held.count:
        wide = largest(shapes_of(held, batch_size=held.count, max_tokens=tokens_at_once, on_card=work.on_card))
        if not whole:
            static = cost.with_trunk(found, static, held, EVALUATIONS_PER_PHASE, wide, tokens_at_once, packed=False)
        looked = work.policy(wide, train=False, whole=whole)
        found.moments.append(cost.looked("held-out loss", static, looked, Traced(0.0), wide))
        found.compute("forward", looked, wide, EVALUATIONS_PER_PHASE * tokens_of(held))
    # With one microbatch per step, gradients are allocated while activations are freed.
    before = static if several else {**static, GRADIENTS: 0.0}
    found.moments.append(cost.trained("update", before, traced, shape))
    tokens = sum(each.tokens for each in shapes) / len(lengths.sampled) * load.visits
    found.compute("training", traced, shape, tokens)
    cost.stepped(found, static, trained, work.largest_numbers if whole else 0)
    return found
