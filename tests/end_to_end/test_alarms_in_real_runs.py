"""Alarms in real PPO on the tiny model: sound runs raise none, planted hacks raise theirs within a few iterations."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.tiny_task import tiny_settings
from tests.small import Lines

from triphase.models.policies import policy_for
from triphase.monitoring.alarm_rules import limits_for
from triphase.monitoring.alarms import Alarm, find_alarms
from triphase.monitoring.metrics import FILE_NAME, read_metrics
from triphase.monitoring.progress import SilentProgress
from triphase.phases.ppo import PPOPhase
from triphase.rewards.types import Answer, Scorer, Scores
from triphase.runs import pipeline
from triphase.runs.generators import generator_of
from triphase.runs.session import Run, prepare
from triphase.tokens.encoding import encode_prompt
from triphase.training.loop import LoopOptions, run_loop


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run after supervised fine-tuning."""
    optimizer = {"learning_rate": 3e-3, "schedule": "constant"}
    ppo = {"iterations": 12, "batch_size": 64, "minibatch_size": 64, "kl_coefficient": 0.0, "optimizer": optimizer}
    with prepare(tiny_settings(str(tmp_path_factory.mktemp("hacks")), **ppo), SilentProgress()) as run:
        pipeline.run_sft(run)
        yield run


class Planted(Scorer):
    """A scorer with a flaw."""

    def __init__(self, score: Callable[[list[str], bool], float]) -> None:
        self._score = score

    def score(self, answers: Sequence[Answer]) -> Scores:
        return Scores(tuple(self._score(answer.response.split(), answer.finished) for answer in answers))


def alarms(run: Run, folder: Path, score: Callable[[list[str], bool], float], *, judged: bool = True) -> list[Alarm]:
    """The alarms of PPO against this scorer."""
    chosen, shared, prompts = run.settings.ppo, run.model(), run.prompts("train")
    lines, policy = Lines(), policy_for(shared, "lora")
    with generator_of(run, policy, chosen.batch_size, folder / "serving") as generator:
        phase = PPOPhase(
            shared,
            prompts,
            [encode_prompt(prompt, shared.template, room=20, max_length=64) for prompt in prompts],
            generator,
            chosen,
            seed=0,
            gold=run.gold if judged else None,
            scorer=Planted(score),
            policy=policy,
        )
        run_loop(phase, LoopOptions(folder / "ppo", lines, keep=1))
    rows = [{"step": step, **row} for step, row in lines.rows.items()]
    return find_alarms(rows, limits_for(None, calibrated=False))


def repeats(words: list[str], finished: bool) -> float:
    return float(sum(first == second for first, second in pairwise(words)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "expected", "latest"),
    [
        (lambda words, _: 0.1 * len(words), "length-score-correlation", 4),
        (lambda words, _: 0.1 * len(words), "length-growth", 12),
        (lambda words, _: -0.1 * len(words), "length-shrinkage", 8),
        (repeats, "repetition", 12),
        (lambda _, __: 0.5, "score-without-spread", 3),
        (lambda _, finished: 0.0 if finished else 1.0, "eos-collapse", 10),
    ],
    ids=["length correlates", "length grows", "length shrinks", "repetition", "constant", "no end"],
)
@pytest.mark.parametrize("judged", [True, False])
def test_a_planted_hack_is_told_early(
    tuned: Run,
    tmp_path: Path,
    score: Callable[[list[str], bool], float],
    expected: str,
    latest: int,
    judged: bool,
) -> None:
    first = {alarm.name: alarm.iteration for alarm in alarms(tuned, tmp_path, score, judged=judged)}
    assert expected in first and first[expected] <= latest + 4 * (not judged), first


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_sound_run_raises_no_alarm(tmp_path: Path, seed: int) -> None:
    with prepare(tiny_settings(str(tmp_path), seed=seed, iterations=40), SilentProgress()) as run:
        for step in (
            pipeline.run_sft,
            pipeline.run_sampling,
            pipeline.run_labeling,
            pipeline.run_reward,
            pipeline.run_ppo,
        ):
            step(run)
        rows = read_metrics(run.part("ppo", FILE_NAME))
    assert len(rows) == 40
    assert [alarm.line() for alarm in find_alarms(rows, limits_for(None, calibrated=True))] == []
