"""Every phase keeps to its device, on a pretended card: no tensor of the processor gets among those of the card.

A step of each phase runs there in a process of its own (`tests.devices.steps`). What it measures is what the processor
measures, and how often the processor waits for the card stays within a stated number.
"""

import json
import subprocess
import sys
from typing import Any

import pytest
from tests.devices.steps import STEPS

# How often the processor may wait for the card: each wait empties the queue of a real one. Of sampling: one a token
# and one a batch of prompts; captured on a CUDA device it is one in eight tokens. Of a phase: in the whole step, which
# has so many microbatches.
WAITS = {"sft": 49, "sft-full": 45, "reward": 59, "sampling": 35, "ppo": 274, "ppo-groups": 278}


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "tests.devices.steps"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", STEPS)
def test_a_phase_keeps_to_its_device_and_computes_the_same(name: str, seen: dict[str, Any]) -> None:
    assert "error" not in seen[name], seen[name]["error"]
    there, here = (
        {key: value for key, value in seen[name][side].items() if "seconds" not in key}
        for side in ("card", "processor")
    )
    assert there.keys() == here.keys()
    assert there == pytest.approx(here, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_a_phase_waits_for_its_card_no_more_often_than_stated(name: str, seen: dict[str, Any]) -> None:
    waits = sum(seen[name]["waits"].values())
    assert 0 < waits <= WAITS[name], seen[name]["waits"]


PLANTED = """
from tests.devices import card, steps
import torch
from triphase.models import heads
device = card.install()
shared = steps.shared_on(device)
forward = heads.ScoreHead.forward
heads.ScoreHead.forward = lambda self, x: forward(self, x) + torch.ones(len(x))
try:
    steps.reward(shared)
except card.MixedDevicesError as error:
    print("found:", error)
"""

CAPTURED = """
from tests.devices import card, steps
import torch
from triphase.models.direct import DirectStepper
from triphase.rollouts.captured import CapturedRows
from triphase.rollouts.decoding import sample
device = card.install()
shared = steps.shared_on(device)
_, prompts = steps.prompts_of(shared)
with shared.role(steps.REFERENCE), torch.no_grad():
    rows = CapturedRows(
        shared, DirectStepper(shared.backbone), len(prompts), capacity=40, limit=16, temperature=1.0, choose=sample
    )
    reader = DirectStepper(shared.backbone)
    reader.read(prompts, pad_id=0, room=0)
    rows.put(range(len(prompts)), reader, torch.rand(len(prompts), 16, dtype=torch.float64))
    with card.watching() as watch:
        rows.advance(16)
print(sum(watch.waits.values()), watch.uploads, int(rows.counts.sum()) > len(prompts))
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_planted_tensor_of_the_processor_is_found() -> None:
    assert run(PLANTED).startswith("found: aten.add.Tensor")


def test_the_step_that_is_captured_never_waits() -> None:
    """A CUDA graph can hold nothing that the processor answers."""
    assert run(CAPTURED).split() == ["0", "0", "True"]
