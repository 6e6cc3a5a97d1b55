"""`model.offload` on a fake card: the same results, what is offloaded when, and a stated number of copies."""

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import json
from tests.devices import card, offloaded
print(json.dumps(offloaded.found_on(card.install())))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made: dict[str, Any] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize("kind", ["ppo", "ppo-full", "sft", "reward"])
def test_results_are_the_same_to_the_bit(kind: str, found: dict[str, Any]) -> None:
    plain, offloaded = found[kind]
    if "metrics" in plain:
        plain, offloaded = plain["metrics"], offloaded["metrics"]
    assert plain and offloaded == plain


def test_without_it_everything_is_on_the_card(found: dict[str, Any]) -> None:
    for kind in ("ppo", "ppo-full"):
        assert {device for stage in found[kind][0]["seen"].values() for device in stage.values()} == {"card"}


def test_what_the_updates_do_not_read_rests(found: dict[str, Any]) -> None:
    seen = found["ppo"][1]["seen"]
    assert seen["updates"] == seen["step"] == {
        "trunk": "cpu", "upper": "card", "reference": "cpu", "reward": "cpu", "policy": "card", "moments": "cpu"
    }  # fmt: skip
    assert {name for name, device in seen["sampling"].items() if device == "cpu"} == {"reference", "reward", "moments"}
    assert {name for name, device in seen["scoring"].items() if device == "cpu"} == {"moments"}
    assert {name for name, device in seen["end"].items() if device == "cpu"} == {"moments"}


def test_with_full_weights_the_whole_base_rests(found: dict[str, Any]) -> None:
    seen = found["ppo-full"][1]["seen"]
    for stage in ("sampling", "updates"):
        assert set(seen[stage].values()) == {"cpu"}
    assert {name for name, device in seen["scoring"].items() if device == "cpu"} == {"moments"}


def test_copies_are_counted(found: dict[str, Any]) -> None:
    """Frozen tensors go to the host once; moments, and what was at rest, are copied as often as they are read."""
    plain, offloaded = found["ppo"]
    each, steps, trained = offloaded["tensors"], offloaded["steps"], offloaded["trained"]
    adapters = each["reference"] + each["reward"]
    assert steps == 8 and each["trunk"] and adapters
    assert offloaded["downloads"] - plain["downloads"] == 2 * trained * steps + adapters + each["trunk"]
    # The trunk wakes for the second iteration, adapters for the scoring of both; the first step has no moments yet.
    assert offloaded["uploads"] - plain["uploads"] == 2 * trained * (steps - 1) + 2 * adapters + each["trunk"]


def test_a_trunk_that_is_read_in_the_updates_does_not_rest(found: dict[str, Any]) -> None:
    assert found["ppo-mix-of-ranks"] == 0
