"""The memory and time needs of sampling responses for people to rank."""

from triphase.footprints.cost import CostModel
from triphase.footprints.moments import Footprint
from triphase.footprints.workload import Lengths


def sampling_footprint(cost: CostModel) -> Footprint:
    """Sampling of responses for people to rank."""
    settings, found = cost.settings.sampling, Footprint("sampling")
    prompts = Lengths(
        [*cost.load.prompts.sampled, *cost.load.heldout_prompts.sampled],
        cost.load.prompts.count + cost.load.heldout_prompts.count,
    )
    by_servers = cost.settings.rollouts.sampling
    static = cost.static(adapters=1, trained=0, by_servers=by_servers)
    responses = prompts.count * settings.responses_per_prompt
    limit = settings.max_response_tokens
    cost.sampled(found, static, prompts, responses, settings.batch_size, limit, by_servers=by_servers)
    return found
