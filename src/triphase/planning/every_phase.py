"""The footprints of all phases of a run."""

from triphase.footprints.cost import CostModel
from triphase.footprints.moments import Footprint
from triphase.phases.ppo_footprint import ppo_footprint
from triphase.phases.reward_footprint import reward_footprint
from triphase.phases.sampling_footprint import sampling_footprint
from triphase.phases.sft_footprint import sft_footprint
from triphase.planning.evaluation_footprint import evaluation_footprint


def footprints_of(cost: CostModel) -> list[Footprint]:
    """The footprint of every phase that has something to do, in the order of the run."""
    load, found = cost.load, []
    if load.demonstrations.count:
        found.append(sft_footprint(cost))
    if load.prompts.count and cost.settings.labeling.source != "none":
        found.append(sampling_footprint(cost))
    if load.groups.count:
        found.append(reward_footprint(cost))
    if load.prompts.count:
        found += [ppo_footprint(cost, variant) for variant in (None, *cost.settings.variants)]
    if load.heldout_prompts.count:
        found.append(evaluation_footprint(cost))
    return found
