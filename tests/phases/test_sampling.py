"""Responses to prompts: grouped by prompt, reproducible one by one."""

from tests.small import shared_model, stir

from triphase.models.roles import POLICY
from triphase.phases.sampling import sample_responses
from triphase.records.types import Message, Prompt

PROMPTS = [Prompt(f"p{n}", (Message("user", text),)) for n, text in enumerate(("oak", "red pine elm", "two"))]


def sampled(prompts, *, seed: int = 0, model: str = "sft", count: int = 3):
    shared = shared_model()
    stir(shared, POLICY)
    return sample_responses(
        shared,
        prompts,
        adapter=POLICY,
        model=model,
        count=count,
        temperature=1.0,
        max_response_tokens=8,
        max_length=40,
        batch_size=4,
        seed=seed,
    )


def test_each_prompt_gets_its_responses_with_ids_of_their_own() -> None:
    found = sampled(PROMPTS)
    assert [prompt.id for prompt, _, _ in found] == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 3
    assert [response.id for _, response, _ in found[:4]] == ["p0/sft/0", "p0/sft/1", "p0/sft/2", "p1/sft/0"]
    assert all(response.prompt_id == prompt.id and response.model == "sft" for prompt, response, _ in found)
    assert all(response.finished == generated.finished for _, response, generated in found)
    assert len({response.seed for _, response, _ in found}) == 9


def test_a_response_does_not_depend_on_the_other_prompts_nor_on_how_many_are_asked() -> None:
    whole = {response.id: (response, generated) for _, response, generated in sampled(PROMPTS)}
    for part in (PROMPTS[1:2], PROMPTS[::-1]):
        for _, response, generated in sampled(part, count=2):
            assert whole[response.id] == (response, generated)


def test_seed_and_name_of_the_model_decide() -> None:
    texts = [
        [response.text for _, response, _ in sampled(PROMPTS, **options)]
        for options in ({}, {"seed": 1}, {"model": "x"})
    ]
    assert texts[0] != texts[1] and texts[0] != texts[2]
