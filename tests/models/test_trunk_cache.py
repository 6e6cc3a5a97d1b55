"""Hidden states that are kept are those that would be computed, wherever they are kept and whoever asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.small import samples, shared_model

from triphase.batches.order import microbatches
from triphase.batches.padding import pad_batch
from triphase.errors import RunError
from triphase.models.disk_cache import DiskCache
from triphase.models.trunk_cache import TrunkCache
from triphase.settings.schema import AdapterSettings

MADE = samples(9)
BYTES = sum(sample.length for sample in MADE) * 32 * 4
PLACES = {"memory": (1.0, 0.0), "file": (0.0, 1.0), "both": (BYTES / 2 / 1e9, 1.0), "some": (BYTES / 2 / 1e9, 0.0)}


def make_batch(indices):
    return pad_batch([MADE[index] for index in indices], pad_id=0)


def kept(shared, memory: float = 1.0, file: float = 0.0, **options) -> TrunkCache:
    chosen = {"visits": [2] * len(MADE), "max_tokens": 40, **options}
    budgets = AdapterSettings(trunk_cache_gb=memory, trunk_file_gb=file)
    return TrunkCache(shared, [sample.length for sample in MADE], make_batch, budgets=budgets, **chosen)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("indices", [[0], [8, 2, 5], list(range(9))])
def test_kept_states_are_the_computed_ones_on_real_tokens(place: str, indices: list[int]) -> None:
    shared = shared_model()
    batch = make_batch(indices)
    found, expected = kept(shared, *PLACES[place]).of(indices, batch), shared.trunk(batch)
    assert found.shape == expected.shape
    assert torch.allclose(found[batch.attention_mask], expected[batch.attention_mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("place", ["memory", "file", "both"])
def test_they_do_not_depend_on_who_asks_when_or_with_whom(place: str, dtype: torch.dtype) -> None:
    shared = shared_model()
    shared.backbone.model.to(dtype)
    through = kept(shared, *PLACES[place])
    first = {index: through.of([index], make_batch([index]))[0, : MADE[index].length] for index in range(9)}
    resumed = kept(shared, *PLACES["memory"])
    for indices in ([7], [1, 3, 7], [0, 8, 4, 2], [6, 5]):
        for states in (through, resumed):
            found = states.of(indices, make_batch(indices))
            assert found.dtype == dtype
            for row, index in enumerate(indices):
                assert torch.equal(found[row, : MADE[index].length], first[index])
                assert not found[row, MADE[index].length :].any()


@pytest.mark.parametrize("place", PLACES)
def test_a_kept_group_is_computed_once_and_the_rest_at_each_visit(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = shared_model()
    computed: list[int] = []
    trunk = shared.trunk
    monkeypatch.setattr(shared, "trunk", lambda batch: computed.append(len(batch.input_ids)) or trunk(batch))
    states = kept(shared, *PLACES[place])
    assert computed == []
    for _ in range(3):
        states.of(list(range(9)), make_batch(list(range(9))))
    groups = microbatches([sample.length for sample in MADE], max_tokens=40, on_card=False)
    if place == "some":
        once = len(states._groups)
        assert 0 < once < 9 and sum(computed) == once + 3 * (9 - once)
    else:
        assert sorted(computed) == sorted(len(group) for group in groups)


@pytest.mark.parametrize(
    ("adapted", "options"),
    [(2, {"visits": [1] * 9}), (2, {"visits": [0] * 9}), (2, {"memory": 1e-7}), ("all", {})],
    ids=["one visit", "full fine-tuning", "too large", "no trunk"],
)
def test_nothing_is_kept_where_it_does_not_pay(adapted, options, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = shared_model(adapted=adapted)
    calls = []
    monkeypatch.setattr(shared, "trunk", lambda batch: calls.append(len(batch.input_ids)) or torch.zeros(1))
    states = kept(shared, **options)
    states.of([0, 1], make_batch([0, 1]))
    assert calls == [2]


def test_the_budgets_count_what_is_kept() -> None:
    shared = shared_model()
    assert len(kept(shared, BYTES / 1e9)._groups) == 9
    assert len(kept(shared, (BYTES - 1) / 1e9)._groups) < 9
    states = kept(shared, 0.0, BYTES / 1e9)
    assert len(states._groups) == len(states._places) == 9 and states._file_size == BYTES


# The file


def test_a_spill_file_gives_back_what_was_put_in(tmp_path: Path) -> None:
    file = DiskCache(1 << 16, tmp_path / "deeper")
    made = {0: torch.randn(5, 7), 140: torch.randn(3, 2).to(torch.bfloat16), 4096: torch.arange(9)}
    for offset, tensor in made.items():
        file.write(offset, tensor)
    assert file.written == set(made)
    for offset, tensor in made.items():
        assert torch.equal(file.read(offset, tuple(tensor.shape), tensor.dtype), tensor)
    assert list((tmp_path / "deeper").iterdir()) == []
    file.close()


def test_its_space_is_reserved_and_a_full_disk_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=str(tmp_path)):
        DiskCache(1 << 60, tmp_path)


def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import os, sys, signal, torch; from pathlib import Path; from triphase.models.disk_cache import DiskCache\n"
        "file = DiskCache(1 << 20, Path(sys.argv[1])); file.write(0, torch.ones(1000))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment)
    assert done.returncode == -9 and list(tmp_path.iterdir()) == []


def test_only_samples_that_are_visited_again_are_kept() -> None:
    shared = shared_model()
    states = kept(shared, visits=[2, 1, 2, 0, 5, 1, 1, 1, 1])
    everyone = list(range(9))
    found = states.of(everyone, make_batch(everyone))
    assert sorted(states._kept) == [0, 2, 4]
    expected = shared.trunk(make_batch(everyone))
    mask = make_batch(everyone).attention_mask
    assert torch.allclose(found[mask], expected[mask], rtol=0, atol=1e-5)
