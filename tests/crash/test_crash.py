"""A run killed at any operation ends with the bytes of an uninterrupted run; a planted fault is found."""

import random
from pathlib import Path

import pytest
from tests.crash import processes
from tests.crash.kills import Killer, outcomes
from tests.crash.scenarios import SCENARIOS, Scenario

from triphase.records import files
from triphase.runs import pipeline as steps
from triphase.settings.schema import RunSettings
from triphase.training.step import Updater


def test_eight_kills_end_bit_identical(tmp_path: Path) -> None:
    found = list(outcomes(tmp_path, kills=8, seed=1))
    assert [outcome.line() for outcome in found if not outcome.identical] == []
    assert sum(len(outcome.kills) for outcome in found) == 8
    phases = {kill.split(" in ")[1].split()[0] for outcome in found for kill in outcome.kills}
    assert {"sft", "reward", "ppo"} <= phases, "kills come in every part of a run"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["branch", "extend", "sweep"])
def test_what_is_made_of_a_finished_run_ends_bit_identical(tmp_path: Path, what: str) -> None:
    found = list(outcomes(tmp_path, kills=7, seed=2, methods=("lora",), scenario=SCENARIOS[what]))
    assert [outcome.line() for outcome in found if not outcome.identical] == []
    assert {kill.split(" in ")[1].split()[0] for outcome in found for kill in outcome.kills} >= {"making", "ppo"}


def without_moments(settings: RunSettings) -> None:
    """Adam's moments are forgotten when a run is resumed."""
    whole = Updater.load_tensors

    def forgetful(self: Updater, tensors: dict[str, object]) -> None:
        whole(self, {name: value for name, value in tensors.items() if name.startswith("parameter.")})

    Updater.load_tensors = forgetful
    processes.pipeline(settings)


def with_double_samples(settings: RunSettings) -> None:
    """Samples of an iteration that is repeated are appended a second time."""
    steps.SampleLog._truncate_from = lambda self, iteration: None
    processes.pipeline(settings)


def without_sync(settings: RunSettings) -> None:
    """Nothing is flushed to the disk before it is renamed."""
    files._sync_tree = lambda directory: None
    processes.pipeline(settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind"), [(without_moments, "operation"), (with_double_samples, "operation"), (without_sync, "power")]
)
def test_a_planted_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault, kind: str) -> None:  # type: ignore[no-untyped-def]
    """The fault lives in the forked processes alone."""
    monkeypatch.setattr("tests.crash.kills.KINDS", (kind,))
    processes.load_libraries()
    sound, faulty = Killer(tmp_path), Killer(tmp_path, Scenario(fault))
    calm = sound.undisturbed("lora")
    draw = random.Random(3)
    assert not all(faulty.attempt(number, "lora", calm, draw, kills=3).identical for number in range(6))
