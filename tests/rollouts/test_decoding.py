"""Sampling: the loop with a cache equals the naive loop; each response depends on its own prompt and seed alone."""

import math
from collections import Counter

import pytest
import torch
from tests.small import random_model, samples, shared_model, stir, tokenizer

from triphase.batches.padding import pad_batch
from triphase.models.direct import FastDecoder
from triphase.models.roles import POLICY, SharedModel
from triphase.rollouts import uncaptured
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.drawing import sample
from triphase.rollouts.types import Generated, Request
from triphase.tokens.encoding import Encoded

END = 1
LIMIT = 12


def prepared(kind: str = "llama", **config: object) -> SharedModel:
    shared = shared_model(kind, **config)
    stir(shared, POLICY)
    return shared


def requests(count: int = 9) -> list[Request]:
    return [Request(made.prompt, seed=100 + number) for number, made in enumerate(samples(count, prompt=(1, 9)))]


def generate(
    shared: SharedModel, asked: list[Request], *, batch_size: int = 4, temperature: float = 1.0, limit: int = LIMIT
) -> list[Generated]:
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=batch_size)
    return generator.generate(asked, temperature=temperature, max_response_tokens=limit)


@torch.no_grad()
def naive(shared: SharedModel, asked: Request, *, temperature: float = 1.0, limit: int = LIMIT) -> Generated:
    """One row, no cache: the whole text is read anew for each token, and the draw is a plain loop."""
    uniforms = torch.rand(limit, generator=torch.Generator().manual_seed(asked.seed), dtype=torch.float64).tolist()
    ids: list[int] = []
    for uniform in uniforms:
        with shared.role(POLICY):
            logits = shared.backbone.model(input_ids=torch.tensor([[*asked.prompt, *ids]]), use_cache=False).logits
        probabilities = (logits[0, -1].double() / temperature).softmax(-1)
        token = next(token for token in range(26) if float(probabilities[: token + 1].sum()) > uniform)
        ids.append(token)
        if token == END:
            return Generated(tuple(ids), True)
    return Generated(tuple(ids), False)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.6])
@pytest.mark.parametrize(
    ("kind", "config"),
    [("llama", {}), ("qwen3", {}), ("mistral", {"sliding_window": 4}), ("smollm3", {})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_loop_is_the_naive_loop(kind: str, config: dict[str, object], temperature: float) -> None:
    shared, asked = prepared(kind, **config), requests(6)
    with torch.no_grad():  # ends come early, so rows are dropped on the way
        shared.backbone.head_weight[END] *= 3
    found = generate(shared, asked, temperature=temperature)
    assert found == [naive(shared, request, temperature=temperature) for request in asked]
    assert len({len(answer.ids) for answer in found}) > 1


@pytest.mark.parametrize("kind", ["llama", "mistral"])  # stepped directly, and by the model's own forward pass
def test_neighbors_batch_size_and_order_change_no_token(kind: str) -> None:
    shared, asked = prepared(kind, **({"sliding_window": 4} if kind == "mistral" else {})), requests(11)
    expected = generate(shared, asked, batch_size=11)
    for batch_size in (1, 3, 64):
        assert generate(shared, asked, batch_size=batch_size) == expected
    order = [7, 0, 10, 3, 5]
    assert generate(shared, [asked[index] for index in order]) == [expected[index] for index in order]


def test_another_seed_is_another_response_and_the_same_seed_the_same() -> None:
    shared, prompt = prepared(), samples(1)[0].prompt
    found = generate(shared, [Request(prompt, seed) for seed in (1, 2, 3, 1)])
    assert found[0] == found[3]
    assert len({answer.ids for answer in found}) == 3


def test_the_adapter_at_work_is_the_one_named() -> None:
    shared, asked = prepared(), requests(4)
    bare = LocalGenerator(shared, adapter=None, batch_size=4)
    assert bare.generate(asked, temperature=1.0, max_response_tokens=LIMIT) != generate(shared, asked)
    with shared.adapters.removed():
        plain = shared.backbone.model.state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in random_model().state_dict().items())


def test_a_response_ends_with_its_first_end_token_and_says_whether_it_did() -> None:
    found = generate(prepared(), requests(40), batch_size=16)
    finished = [answer for answer in found if answer.finished]
    cut = [answer for answer in found if not answer.finished]
    assert finished and cut
    assert all(answer.ids[-1] == END and END not in answer.ids[:-1] for answer in finished)
    assert all(len(answer.ids) == LIMIT and END not in answer.ids for answer in cut)


def test_an_end_token_in_the_last_place_allowed_counts_as_finished() -> None:
    shared, asked = prepared(), requests(40)
    lengths = [len(answer.ids) for answer in generate(shared, asked) if answer.finished]
    limit = Counter(lengths).most_common(1)[0][0]
    at_limit = [answer for answer in generate(shared, asked, limit=limit) if len(answer.ids) == limit]
    assert {answer.finished for answer in at_limit} == {True, False}
    assert all(answer.finished == (answer.ids[-1] == END) for answer in at_limit)


def test_the_end_is_the_templates_and_each_of_the_models() -> None:
    text = (
        "{% for m in messages %}<user> {{ m.content }} <turn> {% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    made = tokenizer(text, extra=["<turn>"])
    shared = prepared(made=made, vocab_size=len(made))
    turn = made.convert_tokens_to_ids("<turn>")
    found = generate(shared, requests(40), limit=30)
    assert any(answer.finished for answer in found)
    assert shared.template.ends == (turn, END)  # the model's configuration names the other
    assert all((answer.ids[-1] in (turn, END)) == answer.finished for answer in found)
    assert {answer.ids[-1] for answer in found} >= {turn, END}
    assert not any({turn, END} & set(answer.ids[:-1]) for answer in found)


def test_the_end_token_inside_a_prompt_ends_nothing() -> None:
    shared = prepared()
    asked = [Request((7, END, 8, END), seed) for seed in range(12)]
    found = generate(shared, asked)
    assert [naive(shared, request) for request in asked] == found
    assert any(len(answer.ids) > 1 for answer in found)


def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(uncaptured, "sample", lambda logits, *rest: sizes.append(len(logits)) or sample(logits, *rest))
    found = generate(prepared(), requests(40), batch_size=40)
    still = [sum(len(answer.ids) > place for answer in found) for place in range(len(sizes))]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 40
    assert all(size >= alive for size, alive in zip(sizes, still, strict=True))
    assert all(alive > 0.75 * size for size, alive in zip(sizes, still, strict=True) if size > 4)


def test_progress_counts_every_response_once() -> None:
    told: list[int] = []
    LocalGenerator(prepared(), adapter=POLICY, batch_size=4).generate(
        requests(9), temperature=1.0, max_response_tokens=3, on_finished=told.append
    )
    assert sum(told) == 9 and min(told) > 0


def test_a_prompt_that_comes_again_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, asked = prepared(), requests(3)
    shared.stepper(None)  # is compared with the full pass, which reads prompts too
    read = []
    right = FastDecoder._read_rows
    monkeypatch.setattr(FastDecoder, "_read_rows", lambda self, *rest: read.extend(rest[1]) or right(self, *rest))
    repeated = [Request(request.prompt, seed) for request in asked for seed in range(4)]
    found = generate(shared, repeated, batch_size=12)
    assert sorted(read) == sorted({request.prompt for request in asked})
    assert found == [naive(shared, request) for request in repeated]


def test_the_next_prompts_take_the_places_of_finished_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, asked = prepared(), requests(60)
    sizes, joined = [], []
    monkeypatch.setattr(uncaptured, "sample", lambda logits, *rest: sizes.append(len(logits)) or sample(logits, *rest))
    right = FastDecoder.join

    def join(self: FastDecoder, prompts: list[tuple[int, ...]], **options: int) -> None:
        joined.append(len(prompts))
        right(self, prompts, **options)

    monkeypatch.setattr(FastDecoder, "join", join)
    found = generate(shared, asked, batch_size=8)
    assert joined and max(sizes) == 8
    # Full but for a quarter of the places, until no prompt waits.
    last_full = len(sizes) - sizes[::-1].index(8)
    assert all(size > 6 for size in sizes[:last_full])
    assert found == [naive(shared, request) for request in asked]


# One draw


def test_a_draw_by_hand() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(6, 1)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.999], dtype=torch.float64)
    assert sample(logits, 1.0, uniform).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -200.0, -math.inf]).repeat(4, 1)
    edges = torch.tensor([0.0, 0.5, 1 - 1e-12, 1 - 2.0**-53], dtype=torch.float64)
    assert set(sample(logits, 1.0, edges).tolist()) <= {1, 3}
    wide = torch.full((2, 49152), -200.0)
    wide[:, 5:9] = torch.tensor([0.3, 1.0, -0.4, 0.0])
    assert sample(wide, 0.7, torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64)).tolist() == [5, 8]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def testdraws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    logits = torch.tensor([1.0, -0.5, 0.0, 2.0, -3.0])
    count = 40_000
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = torch.bincount(sample(logits.repeat(count, 1), temperature, uniform), minlength=5).double()
    expected = count * (logits.double() / temperature).softmax(-1)
    chi_square = float(((seen - expected) ** 2 / expected).sum())
    assert chi_square < 23.5  # 99.99 % point at 4 degrees of freedom
    wrong = count * (logits.double() / (temperature * 1.1)).softmax(-1)
    assert float(((seen - wrong) ** 2 / wrong).sum()) > 23.5


def test_rows_are_drawn_each_by_its_own_uniform() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [-9.0, 9.0]])
    assert sample(logits, 1.0, torch.tensor([0.4, 0.6, 0.1])).tolist() == [0, 1, 1]


# Sampling and the trainer's forward pass


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_the_trainers_logprobs_are_those_of_the_sampling_distribution(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, asked = prepared(), requests(8)
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []

    def recording(logits: torch.Tensor, temperature: float, uniform: torch.Tensor) -> torch.Tensor:
        tokens = sample(logits, temperature, uniform)
        logprobs = (logits / temperature).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        drawn.append((tokens, logprobs))
        return tokens

    monkeypatch.setattr(uncaptured, "sample", recording)
    found = [generate(shared, [request], temperature=temperature)[0] for request in asked]
    at_sampling = torch.cat([logprobs for _, logprobs in drawn])
    batch = pad_batch(
        [Encoded(request.prompt, answer.ids) for request, answer in zip(asked, found, strict=True)], pad_id=0
    )
    with torch.no_grad():
        output = shared.policy_output(batch, shared.trunk(batch), adapter=POLICY, temperature=temperature)
    assert torch.allclose(output.logprobs[batch.response_mask], at_sampling, rtol=0, atol=1e-5)


def test_first_tokens_follow_the_trainers_distribution() -> None:
    """The stated model: over many seeds, the first token is drawn with the probability that the trainer gives it."""
    shared, prompt, count = prepared(), samples(1)[0].prompt, 3000
    found = generate(shared, [Request(prompt, seed) for seed in range(count)], batch_size=500, limit=1)
    seen = Counter(answer.ids[0] for answer in found)
    batch = pad_batch([Encoded(prompt, (token,)) for token in range(26)], pad_id=0)
    with torch.no_grad():
        output = shared.policy_output(batch, shared.trunk(batch), adapter=POLICY, temperature=1.0)
    expected = output.logprobs[:, 0].exp() * count
    assert float(expected.sum()) == pytest.approx(count, rel=1e-4)
    common = [token for token in range(26) if expected[token] > 5]
    chi_square = sum((seen[token] - float(expected[token])) ** 2 / float(expected[token]) for token in common)
    assert chi_square < 2.2 * len(common) + 15
