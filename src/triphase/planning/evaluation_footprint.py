"""The memory and time needs of the evaluation."""

from triphase.footprints.cost import CostModel, tokens_of
from triphase.footprints.moments import BASE, Footprint
from triphase.footprints.workload import largest, shapes_of


def evaluation_footprint(cost: CostModel) -> Footprint:
    """Responses of each policy to held-out prompts, and their scores."""
    settings, work, prompts = cost.settings, cost.work, cost.load.heldout_prompts
    found, by_servers = Footprint("evaluation"), settings.rollouts.evaluation
    static = cost.static(adapters=2 + cost.scorers(), trained=0, by_servers=by_servers)
    asked = min(prompts.count, settings.evaluation.max_prompts or prompts.count)
    responses, limit = asked * settings.evaluation.samples_per_prompt, settings.ppo.max_response_tokens
    policies = 2 + len(settings.variants)
    if settings.trains_whole:  # a policy with its own full weights next to the base
        static[BASE] += cost.work.base_bytes
    batch = settings.sampling.batch_size
    cost.sampled(found, static, prompts, responses, batch, limit, times=policies, by_servers=by_servers)
    answered = prompts.answered(1, [limit]).repeated(responses)
    tokens = settings.ppo.tokens_at_once
    shape = largest(shapes_of(answered, batch_size=responses, max_tokens=tokens, on_card=work.on_card))
    looked, trunk = work.policy(shape, train=False), work.trunk(shape)
    found.moments.append(cost.looked("scoring", static, looked, trunk, shape))
    found.compute("forward", trunk * 2 + looked * (2 + cost.scorers()), shape, tokens_of(answered) * policies)
    return found
