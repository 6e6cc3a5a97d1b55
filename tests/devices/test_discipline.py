"""Every phase stays on its device, on a fake card: tensors of the processor and of the card do not mix.

A step of each phase runs there in a process of its own (`tests.devices.counted`). What it measures is what the
processor measures, and how often the processor waits for the card stays within a stated number.
"""

import json
import subprocess
import sys
from typing import Any

import pytest
from tests.devices.steps import STEPS

# How often the processor may wait for the card in a whole step: each wait empties the queue of a real one. What is left
# of SFT is a look of transformers in each pass, to see whether a row holds several sequences.
WAITS = {
    "sft": 11,
    "sft-full": 7,
    "reward": 6,  # the loss is of the processor: its gradient goes back
    "reward-two-heads": 19,
    "sampling": 26,
    "sampling-whole": 108,
    "ppo": 67,
    "ppo-groups": 57,
    "ppo-rloo": 56,
    "ppo-grpo": 56,
    "ppo-reinforce": 65,
    "ppo-critic": 73,
    "ppo-quantized": 67,
    "ppo-full": 141,  # of a model of its own: how it writes is compared with the full pass once
    "ppo-later": 142,
    "ppo-gemma2": 91,  # ten of them by transformers' cache, once per call of the decode loop
    "ensemble": 73,
    "ensemble-average": 104,
    "evaluation": 8,
}
# Of the updates: one a minibatch for its figures, one in each pass of the first for the ratio, and transformers' look
# in each pass over rows that hold one response alone.
PASSES = {"ppo-groups": 0, "ppo-rloo": 0, "ppo-grpo": 0, "ppo-critic": 2, "ppo-full": 2, "ppo-gemma2": 2}


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "tests.devices.counted"], capture_output=True, text=True, check=False)
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


@pytest.mark.parametrize("name", [name for name in STEPS if name.startswith("ppo")])
def test_the_updates_wait_once_a_minibatch(name: str, seen: dict[str, Any]) -> None:
    counts = seen[name]
    assert counts["update_microbatches"] >= counts["minibatches"] == 4
    looks = PASSES.get(name, 1) * counts["update_microbatches"]
    allowed = counts["minibatches"] + counts["first_microbatches"] + looks
    assert 0 < counts["update_waits"] <= allowed


def test_the_decode_loop_waits_once_a_token(seen: dict[str, Any]) -> None:
    """To see which rows have ended; captured on a CUDA device it is once in eight tokens."""
    counts = seen["sampling"]
    # The last token of a batch is drawn and not read any more.
    assert sum(counts["waits"].values()) <= counts["tokens"] + counts["reads"]


PLANTED = """
import importlib
from tests.devices import card, counted, steps
import torch
from triphase.phases import minibatch
device = card.install()
# In what each phase alone computes: a tensor of the processor beside its result.
for name, module, owner in (
    ("sft", "triphase.phases.sft", "response_nll"),
    ("sft-full", "triphase.models.roles", "response_logprobs"),
    ("reward", "triphase.phases.reward", "pair_loss"),
    ("sampling", "triphase.rollouts.uncaptured", "sample"),
    ("ppo", "triphase.phases.minibatch", "clipped_policy_loss"),
    ("ppo-critic", "triphase.phases.minibatch", "clipped_value_loss"),
    ("ppo-full", "triphase.phases.ppo", "shape_rewards"),
    ("ppo-rloo", "triphase.phases.ppo", "advantages_of"),
    ("ensemble", "triphase.models.members", "combine_scores"),
    ("evaluation", "triphase.models.roles", "response_logprobs"),
):
    place = importlib.import_module(module)
    real = getattr(place, owner)
    def planted(*args, **kwargs):
        given = [each for each in args if isinstance(each, torch.Tensor) and each.is_floating_point()]
        for each in given[:1] or [torch.ones(3, device=device)]:
            each + torch.ones(each.shape or (1,))
        return real(*args, **kwargs)
    shared = steps.shared_on(device)
    shared.stepper(None)
    setattr(place, owner, planted)
    try:
        steps.STEPS[name](shared)
        print("missed:", name)
    except card.MixedDevicesError as error:
        print("found:", name, error)
    setattr(place, owner, real)
# Where an operation takes whole numbers of the processor, as positions, but not in another place; and where tensors
# are joined, none of which may be of the processor, not even a single number.
numbers, there = torch.arange(4), torch.arange(4, device=device)
for take in (
    lambda: numbers[there],
    lambda: there.index_put_((numbers,), numbers),
    lambda: torch.stack([there[0], numbers[0]]),
):
    try:
        take()
        print("missed:", take)
    except card.MixedDevicesError as error:
        print("found:", error)
with card.watching() as watch:
    there[numbers], numbers.copy_(there)
    list_and_copy = there[[0, 1]], numbers.to(device)
assert watch.waits == {"copy to the processor": 1, "to the card": 3} and watch.uploads == 3, watch.waits
with card.watching() as watch:
    numbers.to(device, non_blocking=True)
assert watch.uploads == 1 and not watch.waits, (watch.uploads, watch.waits)
loss = minibatch.clipped_policy_loss
def waiting(*args, **kwargs):
    made = loss(*args, **kwargs)
    made[0].item()
    return made
minibatch.clipped_policy_loss = waiting
counts = counted.Counts()
steps.around_step = counts.counting
steps.ppo(steps.shared_on(device), responses_per_prompt=4)
print(counts.update_waits - counts.minibatches - 1, counts.update_microbatches)
"""

CAPTURED = """
from tests.devices import card, steps
import torch
from triphase.models.direct import FastDecoder
from triphase.rollouts.captured import CapturedRows
from triphase.rollouts.drawing import sample
device = card.install()
shared = steps.shared_on(device)
_, prompts = steps.prompts_of(shared)
with shared.role(steps.REFERENCE), torch.no_grad():
    rows = CapturedRows(
        shared, FastDecoder(shared.backbone), len(prompts), capacity=40, limit=16, temperature=1.0, choose=sample
    )
    reader = FastDecoder(shared.backbone)
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


def test_a_planted_tensor_of_the_processor_is_found_in_each_phase_and_a_planted_wait_counted() -> None:
    *mixed, waits = run(PLANTED).splitlines()
    assert len(mixed) == 13
    assert all(line.startswith("found: ") for line in mixed), mixed
    assert all("aten.add.Tensor" in line for line in mixed[:10]) and all("aten.index" in line for line in mixed[10:12])
    assert "aten.stack" in mixed[12]
    planted, microbatches = map(int, waits.split())
    assert planted == microbatches > 0


WRITTEN = """
from tests.devices import card, steps
import torch
from triphase.rollouts.captured import CapturedRows
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.drawing import draws, sample
from triphase.rollouts.types import Request
from triphase.rollouts.writing import CapturedWriter
device = card.install()
_, prompts = steps.prompts_of(steps.shared_on("cpu"))
asked = [Request(prompts[number % len(prompts)], number) for number in range(40)]
plain = LocalGenerator(steps.shared_on("cpu"), adapter=steps.REFERENCE, batch_size=16)
expected = [list(each.ids) for each in plain.generate(asked, temperature=1.0, max_response_tokens=20)]
shared = steps.shared_on(device)
intervals, widths, advance = [0], set(), CapturedRows.advance
def counted(rows, tokens):
    intervals[0] += 1
    widths.add(rows.width)
    advance(rows, tokens)
CapturedRows.advance = counted
writer = CapturedWriter(shared, choose=sample, draws=draws, record=None)
with shared.role(steps.REFERENCE), card.watching() as watch:
    found = writer.write(asked, batch_size=16, temperature=1.0, limit=20)
print(sum(watch.waits.values()) == intervals[0] > 4, widths == {8, 16}, found == expected, dict(watch.waits))
"""


def test_the_step_that_is_captured_never_waits() -> None:
    """A CUDA graph can hold nothing that the processor answers."""
    assert run(CAPTURED).split() == ["0", "0", "True"]


def test_captured_writing_waits_once_in_eight_tokens() -> None:
    """At the look itself: not where prompts are read into free places, nor where rows move to a narrower step."""
    assert run(WRITTEN).split()[:3] == ["True", "True", "True"], run(WRITTEN)
