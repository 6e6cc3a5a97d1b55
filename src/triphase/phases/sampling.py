"""Sampling: responses of one policy to prompts, each with its own seed."""

from collections.abc import Callable, Sequence

from triphase.batches.order import seed_of
from triphase.models.roles import SharedModel
from triphase.records.types import Prompt, Response
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Generated, Generator, Request
from triphase.tokens.encoding import encode_prompt


def sample_responses(
    shared: SharedModel,
    prompts: Sequence[Prompt],
    *,
    adapter: str | None,
    model: str,
    count: int,
    temperature: float,
    max_response_tokens: int,
    max_length: int,
    batch_size: int,
    seed: int,
    on_finished: Callable[[int], None] | None = None,
    generator: Generator | None = None,
) -> list[tuple[Prompt, Response, Generated]]:
    """``count`` responses to each prompt, grouped by prompt, with the ids that were sampled.

    The seed of a response depends on the run's seed, the model's name, the prompt and its number: the response is the
    same whatever else is sampled in the same call. ``generator`` samples from the same policy elsewhere.
    """
    requests: list[Request] = []
    for prompt in prompts:
        ids = encode_prompt(prompt, shared.template, room=max_response_tokens, max_length=max_length)
        requests += [Request(ids, seed_of(seed, "sampling", model, prompt.id, number)) for number in range(count)]
    if generator is None:
        local = LocalGenerator(shared, adapter=adapter, batch_size=batch_size)
        found = local.generate(
            requests, temperature=temperature, max_response_tokens=max_response_tokens, on_finished=on_finished
        )
    else:
        found = generator.generate(requests, temperature=temperature, max_response_tokens=max_response_tokens)
        if on_finished is not None:
            on_finished(len(found))
    results = []
    for index, (request, generated) in enumerate(zip(requests, found, strict=True)):
        prompt, number = prompts[index // count], index % count
        response = Response(
            id=f"{prompt.id}/{model}/{number}",
            prompt_id=prompt.id,
            text=shared.template.text(generated.ids),
            model=model,
            finished=generated.finished,
            seed=request.seed,
        )
        results.append((prompt, response, generated))
    return results
