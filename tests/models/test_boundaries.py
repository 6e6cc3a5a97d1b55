"""Hidden states that are kept are those that would be computed."""

import pytest
import torch
from tests.small import samples, shared_model

from triphase.batches.padding import pad_batch
from triphase.models import boundaries
from triphase.models.boundaries import Boundaries

MADE = samples(9)


def make_batch(indices):
    return pad_batch([MADE[index] for index in indices], pad_id=0)


def kept(shared, **options) -> Boundaries:
    chosen = {"visits": 2, "max_tokens": 40, **options}
    return Boundaries(shared, [sample.length for sample in MADE], make_batch, **chosen)


@pytest.mark.parametrize("indices", [[0], [8, 2, 5], list(range(9))])
def test_kept_states_are_the_computed_ones_on_real_tokens(indices: list[int]) -> None:
    shared = shared_model()
    batch = make_batch(indices)
    found, expected = kept(shared).of(indices, batch), shared.trunk(batch)
    assert found.shape == expected.shape
    assert torch.allclose(found[batch.attention_mask], expected[batch.attention_mask], rtol=0, atol=1e-5)


def test_they_do_not_depend_on_who_asks_with_whom() -> None:
    shared = shared_model()
    states = kept(shared)
    length = MADE[3].length
    alone = states.of([3], make_batch([3]))[0, :length]
    assert torch.equal(states.of([1, 3, 7], make_batch([1, 3, 7]))[1, :length], alone)
    assert torch.equal(kept(shared).of([3], make_batch([3]))[0, :length], alone)


@pytest.mark.parametrize(
    ("adapted", "options"),
    [(2, {"visits": 1}), (2, {"visits": 0}), (2, {"budget_bytes": 100}), ("all", {})],
    ids=["one visit", "full fine-tuning", "too large", "no trunk"],
)
def test_nothing_is_kept_where_it_does_not_pay(adapted, options, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = shared_model(adapted=adapted)
    calls = []
    monkeypatch.setattr(shared, "trunk", lambda batch: calls.append(len(batch.input_ids)) or torch.zeros(1))
    states = kept(shared, **options)
    assert calls == []
    states.of([0, 1], make_batch([0, 1]))
    assert calls == [2]


def test_the_budget_counts_what_is_kept() -> None:
    shared = shared_model()
    size = sum(sample.length for sample in MADE) * 32 * 4
    assert kept(shared, budget_bytes=size)._kept is not None
    assert kept(shared, budget_bytes=size - 1)._kept is None
    assert boundaries.BUDGET_BYTES == 2_000_000_000
