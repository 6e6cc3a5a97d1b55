"""A scorer that raises, hangs or returns nonsense, and running out of memory: one line with the remedy."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.crash import pipeline as small
from tests.crash import processes
from tests.runs import small_run

from triphase.errors import RunError, TrainingError
from triphase.monitoring.memory import LOWER, memory_errors
from triphase.monitoring.metrics import read_metrics
from triphase.runs import pipeline
from triphase.runs import session as run
from triphase.runs.checked_score import CheckedScore
from triphase.settings.fields import settings_fields


def raises(*_: Any) -> float:
    raise KeyError("lexicon")


def hangs(*_: Any) -> float:
    threading.Event().wait(30)
    return 0.0


@pytest.mark.parametrize(
    ("score", "problem"),
    [
        (raises, r"failed \(KeyError: 'lexicon'\)"),
        (hangs, "did not respond within 0.2 s"),
        (lambda *_: math.nan, "returned nan; a score must be a finite number"),
        (lambda *_: -math.inf, "returned -inf"),
        (lambda *_: "0.5", "returned '0.5'"),
        (lambda *_: None, "returned None"),
        (lambda *_: True, "returned True"),
    ],
)
def test_a_scorer_that_fails_is_one_line(score: Callable[..., Any], problem: str) -> None:
    begin = time.monotonic()
    with pytest.raises(TrainingError, match=problem) as caught:
        CheckedScore(score, "mine", seconds=0.2)("the prompt", "the response", True)
    line = str(caught.value)
    assert (
        line.startswith("the scorer mine ")
        and " for the response 'the response' to 'the prompt'" in line
        and "fix the scorer" in line
    )
    assert time.monotonic() - begin < 5


def test_a_sound_scorer_is_asked_once_for_each_response() -> None:
    asked: list[tuple[str, str, bool]] = []

    def score(*given: Any) -> float:
        asked.append(given)
        return len(given[1])

    checked = CheckedScore(score, "mine")
    assert [checked("p", text, False) for text in ("a", "bb")] == [1.0, 2.0]
    assert asked == [("p", "a", False), ("p", "bb", False)]


@pytest.mark.parametrize("failure", [raises, hangs, lambda *_: math.nan])
def test_a_run_whose_gold_scorer_fails_goes_on_once_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[..., float]
) -> None:
    small_run.write_data(tmp_path)
    sound, calls = run.gold_of("grammar"), iter(range(10**6))
    chosen = small_run.settings(tmp_path)

    def failing(prompt: str, response: str, finished: bool) -> float:
        return failure() if next(calls) == 70 else sound(prompt, response, finished)

    monkeypatch.setattr(CheckedScore.__init__, "__kwdefaults__", {"seconds": 0.5})
    monkeypatch.setattr(run, "gold_of", lambda _: failing)
    with pytest.raises(TrainingError, match="the scorer grammar"):
        small_run.do(chosen, pipeline.run_all)
    monkeypatch.setattr(run, "gold_of", lambda _: sound)
    ended = small_run.do(chosen, pipeline.run_all)
    assert [row["step"] for row in read_metrics(ended.path / "ppo" / "metrics.jsonl")] == [1, 2]


PHASES = [*LOWER, "arms/other"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried 1"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=["python", "cpu", "cuda"],
)  # fmt: skip
def test_memory_that_runs_out_names_figures_and_the_setting_to_lower(phase: str, error: Exception) -> None:
    known = {field.name for field in settings_fields()}
    with pytest.raises(RunError, match=rf"^{phase}: not enough memory \(\d+\.\d GB peak use, \d+\.\d GB") as caught:
        with memory_errors(phase):
            raise error
    line = str(caught.value)
    assert "\n" not in line and "finished work is kept" in line
    assert [name for name in known if f" {name}" in line], line


def test_other_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_errors("sft"):
        raise RuntimeError("shape '[2]' is invalid for input of size 3")


def test_a_run_that_truly_gets_no_memory_says_so_and_goes_on_with_more(tmp_path: Path) -> None:
    """The address space of the process is limited in the middle of a phase, and a large tensor is asked for."""
    processes.load_libraries()
    settings, log = small.settings(tmp_path), tmp_path / "log"

    def starved() -> None:
        import resource

        from triphase.phases.ppo import PPOPhase

        whole = PPOPhase.advance

        def iterate(self: PPOPhase, iteration: int) -> dict[str, float]:
            if iteration == 1:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
                torch.zeros(1 << 30)
            return whole(self, iteration)

        PPOPhase.advance = iterate  # type: ignore[method-assign] # in this process alone, which ends with it
        processes.pipeline(settings)

    assert processes.wait(processes.start(starved, log)) == processes.MISTAKEN
    said = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "ppo: not enough memory (" in said[0] and "lower ppo.microbatch_tokens" in said[0]
    assert "Traceback" not in log.read_text()
    assert processes.wait(processes.start(lambda: processes.pipeline(settings), log)) == 0
    rows = read_metrics(Path(settings.output) / "small" / "ppo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
