"""The learning curve of the reward model: parts of the prompts, and what a doubling brought."""

import json
import math
from pathlib import Path

import pytest
from tests.runs.small_run import do, files_of, settings, write_data

from triphase.cli.phases import reward
from triphase.errors import SettingsError
from triphase.reports.contents import read_run
from triphase.reports.learning_curve import CurvePoint, curve_sentences, gain_of_doubling
from triphase.reports.page import page_of
from triphase.runs import pipeline
from triphase.runs.learning_curve import measure_curve
from triphase.runs.session import Run
from triphase.training.stopping import Stopped


def point(prompts: int, accuracy: float) -> CurvePoint:
    return CurvePoint(prompts / 80, prompts, 6 * prompts, accuracy, accuracy - 0.1, accuracy + 0.1, 0.6)


def test_the_gain_of_a_doubling_by_hand() -> None:
    """log₂ sizes −1, 0, 1 about their mean, accuracies 0.60, 0.66, 0.70: (0.70 − 0.60) / 2."""
    points = [point(20, 0.60), point(40, 0.66), point(80, 0.70)]
    assert gain_of_doubling(points) == pytest.approx(0.05, abs=1e-12)
    assert "brought +5.0 points" in curve_sentences(points)[-1] and len(curve_sentences(points)) == 4
    assert curve_sentences(points)[-1].endswith("brings about as much at most, and less near the noise ceiling")
    for level, brought in ((0.65, "−5.0"), (0.7, "+0.0")):
        said = curve_sentences([point(20, 0.7), point(40, level)])[-1]
        assert f"brought {brought} points" in said and "no gain by more of them is shown, and none is excluded" in said
        assert "next doubling" not in said
    assert gain_of_doubling(points[:1]) is None and curve_sentences([]) == []


def test_a_run_has_its_curve_and_its_reward_model_stays(tmp_path: Path) -> None:
    write_data(tmp_path)
    steps = (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward)
    do(settings(tmp_path), *steps)
    before = files_of(tmp_path)
    with pytest.raises(Stopped):
        do(settings(tmp_path), measure_curve, stop=True)
    do(settings(tmp_path), measure_curve)
    run = tmp_path / "runs" / "small"
    lines = [json.loads(line) for line in (run / "reward" / "learning-curve.jsonl").read_text().splitlines()]
    assert [line["prompts"] for line in lines] == [4, 8, 16]
    assert lines[0]["pairs"] < lines[1]["pairs"] < lines[2]["pairs"]
    assert all(0 <= line["accuracy"] <= 1 and math.isfinite(line["loss"]) for line in lines)
    assert not list((run / "reward").glob("curve-*"))
    assert files_of(tmp_path) == before
    assert "Learning curve" in page_of(read_run(run))


def test_too_few_prompts_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data(tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[9:]))  # 7 for training

    def measure(run: Run) -> None:
        measure_curve(run)
        notes = run.progress.notes
        assert any("no learning curve: it needs at least 8 training prompts" in note for note in notes)

    do(settings(tmp_path), pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, measure)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="--learning-curve: needs a single process"):
        reward(Path("any.yaml"), learning_curve=True)
