"""Benchmarks that count the tokens of full responses write full responses."""

from collections.abc import Callable

import pytest
from benchmarks.full_responses import write_in_full
from tests.small import shared_model, stir

from benchmarks import ours_ppo, scaling
from triphase.demo.tiny import tiny_directory
from triphase.models.roles import POLICY, REFERENCE, SharedModel
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request

LIMIT = 24


def lengths(shared: SharedModel, adapter: str = REFERENCE) -> set[int]:
    generator = LocalGenerator(shared, adapter=adapter, batch_size=64)
    asked = [Request((5, 6), number) for number in range(64)]
    return {len(each.ids) for each in generator.generate(asked, temperature=1.0, max_response_tokens=LIMIT)}


def test_no_token_ends_a_response() -> None:
    shared = shared_model()
    stir(shared, POLICY)
    assert min(lengths(shared, POLICY)) < LIMIT
    write_in_full(shared)
    assert lengths(shared, POLICY) == {LIMIT}


@pytest.mark.parametrize("make", [lambda: scaling._model(64, 2), lambda: ours_ppo.shared_model("2", "float32")])
def test_the_models_of_iterations_write_in_full(
    make: Callable[[], SharedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours_ppo, "model_directory", lambda name: tiny_directory() / "model")
    assert lengths(make()) == {LIMIT}
