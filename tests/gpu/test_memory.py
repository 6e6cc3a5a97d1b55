"""Off-load on a CUDA device: the same results with less memory, and an 8 B model within 24 GB.

Each test needs a CUDA device: `make test-gpu`.
"""

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tests.devices.steps import ppo_phase, shared_on

from benchmarks import gpu
from triphase.models.roles import POLICY, SharedModel
from triphase.phases.ppo import PPOPhase
from triphase.phases.reward import RewardPhase
from triphase.phases.sft import SupervisedPhase
from triphase.records.types import Message, Pair, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.phases import RewardSettings, SupervisedSettings
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded, EncodedGroup

pytestmark = pytest.mark.gpu
_CAP = 24e9


@pytest.fixture
def capped() -> Iterator[None]:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, _CAP / total))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("changes", [{}, {"method": "full"}], ids=["adapter", "full"])
def test_off_load_changes_no_result(changes: dict[str, str]) -> None:
    found = []
    for offload in (False, True):
        shared = shared_on("cuda")
        shared.loaded = replace(shared.loaded, offload=offload)
        phase = ppo_phase(shared, **changes)
        metrics = [phase.advance(number) for number in range(3)]
        phase.finish()
        found.append([{key: value for key, value in each.items() if "seconds" not in key} for each in metrics])
    assert found[0] == found[1]


def test_an_eight_billion_model_is_trained_within_24_gb(capped: None) -> None:
    """In bfloat16 with off-load, since the quantizers may be missing there."""
    shared = gpu._shared("8b", "third", torch.device("cuda"))
    shared.loaded = replace(shared.loaded, offload=True)
    rows = [Encoded(gpu._ids(128, n, shared), gpu._ids(128, n + 999, shared)) for n in range(16)]
    SupervisedPhase(shared, rows, [*range(16)], [], SupervisedSettings(batch_size=16)).advance(0)
    shared.adapters.train_only(None)
    groups = [EncodedGroup(row.prompt, (row.response, rows[-1].response)) for row in rows]
    pairs = [[Pair(0, 1, 1.0)] for _ in groups]
    RewardPhase(shared, groups, pairs, [], [], RewardSettings(batch_size=16), seed=0).advance(0)
    shared.adapters.train_only(None)
    _ppo(shared).advance(0)
    assert torch.cuda.max_memory_allocated() < _CAP


def _ppo(shared: SharedModel) -> PPOPhase:
    settings = PPOSettings(iterations=1, batch_size=16, minibatch_size=8, epochs=1, max_response_tokens=128)
    prompts = [Prompt(str(number), (Message("user", "w5"),)) for number in range(16)]
    ids = [gpu._ids(128, number, shared) for number in range(16)]
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=16)
    return PPOPhase(shared, prompts, ids, generator, settings, seed=0)
