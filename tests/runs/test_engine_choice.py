"""`rollouts.engine: auto`: a trial at the start of PPO, one engine to its end, and this process where servers fail."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.rollouts.test_started import settings as of_fake_python
from tests.runs import small_run
from tests.runs.test_generators import PPO, VLLM, graded, scored_by, settings, trained

from triphase.datacheck.demands import require_settings
from triphase.errors import RunError, ServerError, SettingsError
from triphase.phases.engine_trial import EngineTrial
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.engines import choice_note
from triphase.runs import engine_choice, pipeline
from triphase.runs.kept_engine import kept_choice
from triphase.runs.resume_checks import require_resumable
from triphase.runs.session import Run
from triphase.runs.verification import verify_run
from triphase.training.checkpoint import save_checkpoint
from triphase.training.checkpoint_places import CHECKPOINTS

__all__ = ["trained"]
RATES = {"local": 20.0, "vllm": 30.0}


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines that were tried, in one rollout each: servers are found to be faster."""
    found: list[str] = []
    plain = EngineTrial.rate

    def rate(self: EngineTrial, generator: Any, *given: Any) -> float:
        found.append("local" if isinstance(generator, LocalGenerator) else "vllm")
        assert plain(self, generator, *given) > 0
        return RATES[found[-1]]

    monkeypatch.setattr(EngineTrial, "rate", rate)
    monkeypatch.setattr(engine_choice, "SECONDS", 0.0)
    return found


def lines_of(run: Run) -> list[str]:
    texts = [json.loads(line)["message"] for line in (run.path / "log.jsonl").read_text().splitlines()]
    return [text for text in texts if "rollouts.engine auto" in text or "importance_limit" in text]


def finals(*runs: Run) -> list[Any]:
    return [small_run.files_of(run.path / "ppo", "final/*.safetensors") for run in runs]


def test_the_faster_engine_samples_the_run_to_its_end(trained: Path, trials: list[str]) -> None:
    with FakeServer(graded).running() as scorer:
        ppo = scored_by(scorer.address)["ppo"]
        stand_in = VLLM((begun := small_run.do(settings(trained, "chosen", ppo=ppo))).settings, begun)
        with FakeServer(stand_in).running() as server:
            served = {"addresses": [server.address], "retries": 0}
            by = small_run.do(settings(trained, "by", rollouts={**served, "engine": "vllm"}, ppo=ppo), pipeline.run_ppo)
            scored = len(scorer.asked)
            scorer.reply = lambda asked: Reply(500) if len(scorer.asked) > scored + 1 else graded(asked)
            chosen = settings(trained, "chosen", rollouts={**served, "engine": "auto"}, ppo=ppo)
            with pytest.raises(ServerError, match="status 500"):
                small_run.do(chosen, pipeline.run_ppo)
            assert trials == ["local", "vllm"]
            scorer.reply = graded
            cut = small_run.do(chosen, pipeline.run_ppo)
            assert all(each.same for each in verify_run(cut.path, 1))
    assert trials == ["local", "vllm"]  # resumed and repeated without another trial
    both = finals(by, cut)
    assert both[0] and both[0] == both[1]
    told = "20 new tokens per second in this process, 30 by servers; the servers sample this run"
    assert [line.rpartition("auto: ")[2] for line in lines_of(cut)] == [told, f"{told}, as when PPO began"]
    choice = kept_choice(cut.path, "arms/other")  # a variant follows the main run
    assert choice is not None and choice.by_servers and choice.rates == RATES


def test_this_process_samples_where_servers_cannot(trained: Path, trials: list[str]) -> None:
    with FakeServer(graded).running() as gone:
        pass
    with FakeServer(graded).running() as scorer:
        ppo = scored_by(scorer.address)["ppo"]
        alone = small_run.do(settings(trained, "alone", ppo=ppo), pipeline.run_ppo)
        rollouts = {"engine": "auto", "addresses": [gone.address], "retries": 0}
        chosen = settings(trained, "astray", rollouts=rollouts, ppo={**ppo, "importance_limit": 2.0})
        require_settings(chosen, ("ppo",))
        run = small_run.do(chosen, pipeline.run_ppo)
        both = finals(alone, run)
        shutil.rmtree(run.path / "ppo" / "final")  # as if iterations were left
        for engine in ("vllm", None):
            served = settings(trained, "astray", rollouts={**rollouts, "engine": engine}, ppo=chosen.ppo.model_dump())
            with pytest.raises(RunError, match=r"left sampling to this process.* set rollouts\.engine: auto again, or"):
                small_run.do(served, pipeline.run_ppo)
            with pytest.raises(RunError, match="left sampling to this process"):
                require_resumable(served)
    assert not trials and both[0] and both[0] == both[1]
    first, second = lines_of(run)[:2]
    assert first.startswith("rollouts.engine auto: this process samples, because servers could not: rollouts.addresses")
    assert "cannot be reached" in first and second.startswith("ppo.importance_limit does not apply")
    choice = kept_choice(run.path, "ppo")
    assert choice is not None and choice.engine == "local" and "cannot be reached" in choice.reason


@pytest.mark.parametrize(("behave", "reason"), [("fails", "ended with exit code 3"), ("none", "has no package vllm")])
def test_started_servers_that_do_not_start_are_told(
    trained: Path, tmp_path: Path, trials: list[str], behave: str, reason: str
) -> None:
    fake = of_fake_python(tmp_path, behave).rollouts
    python = tmp_path / "bare"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    rollouts = {"engine": "auto", "servers": 1, "python": str(python) if behave == "none" else fake.python}
    rollouts["arguments"] = list(fake.arguments)
    with FakeServer(graded).running() as scorer:
        ppo = {**scored_by(scorer.address)["ppo"], "iterations": 1}
        chosen = settings(trained, f"started-{behave}", rollouts=rollouts, ppo=ppo)
        require_settings(chosen, ("ppo",))
        run = small_run.do(chosen, pipeline.run_ppo)
        (line,) = lines_of(run)
        assert "this process samples, because servers could not: rollouts." in line and reason in line
        if behave == "none":  # what servers alone can do is still refused
            for changes in ({"evaluation": True}, {"ahead": 1}):
                more = ppo | ({"importance_limit": 2.0} if "ahead" in changes else {})
                needing = settings(trained, "needing", rollouts=rollouts | changes, ppo=more)
                with pytest.raises(SettingsError, match="has no package vllm"):
                    require_settings(needing, ("ppo", "evaluation"))


def test_a_trial_that_decides_nothing_is_not_made(trained: Path, trials: list[str]) -> None:
    with FakeServer(graded).running() as scorer:
        ppo = {**scored_by(scorer.address)["ppo"], "iterations": 1}
        run = small_run.do(settings(trained, "no-servers", rollouts={"engine": "auto"}, ppo=ppo), pipeline.run_ppo)
    assert (
        lines_of(run) == ["rollouts.engine auto: without a trial, since no servers or addresses are set"] and not trials
    )


def test_servers_that_lose_are_ended(trained: Path, trials: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RATES, "vllm", 10.0)
    events: list[str] = []
    plain = engine_choice.generator_of

    @contextmanager
    def watched(*given: Any, **named: Any) -> Iterator[Any]:
        with plain(*given, **named) as generator:
            yield generator
        events.append("ended")

    def scored(asked: Asked) -> Reply:
        events.append("scored")
        return graded(asked)

    monkeypatch.setattr(engine_choice, "generator_of", watched)
    with FakeServer(scored).running() as scorer:
        ppo = {**scored_by(scorer.address)["ppo"], "iterations": 1}
        stand_in = VLLM((begun := small_run.do(settings(trained, "lost", ppo=ppo))).settings, begun)
        with FakeServer(stand_in).running() as server:
            rollouts = {"engine": "auto", "addresses": [server.address], "retries": 0}
            run = small_run.do(settings(trained, "lost", rollouts=rollouts, ppo=ppo), pipeline.run_ppo)
            count = sum("seed" in (one.body or {}) for one in server.asked)
    assert events == ["ended", "scored"]  # before the first iteration
    assert trials == ["local", "vllm"] and count == 3 * 8  # two short rollouts and one of the trial
    assert lines_of(run)[0].endswith(
        "20 new tokens per second in this process, 10 by servers; this process samples this run"
    )


def test_without_servers_or_a_trial_nothing_changes(trained: Path, trials: list[str]) -> None:
    for rollouts in (
        {},
        {"engine": "auto"},
        {"addresses": ["http://h"]},
        {"engine": "vllm", "addresses": ["http://h"]},
    ):
        assert not settings(trained, "plain", rollouts=rollouts, ppo=PPO).rollouts.tries_both
    assert settings(trained, "plain", rollouts={"engine": "auto", "addresses": ["http://h"]}).rollouts.tries_both


def test_a_run_that_began_before_there_was_a_trial_goes_on_with_servers(tmp_path: Path) -> None:
    assert kept_choice(tmp_path, "ppo") is None
    parent = tmp_path / "ppo" / CHECKPOINTS
    save_checkpoint(parent, 1, {"parameter.a": torch.zeros(1)}, {"values": {"kl_coefficient": 0.1}}, keep=1)
    choice = kept_choice(tmp_path, "ppo")
    assert choice is not None and choice.by_servers and choice_note(choice, is_kept=True).endswith("without a trial")
    assert kept_choice(tmp_path, "arms/new") is None  # which has not begun
