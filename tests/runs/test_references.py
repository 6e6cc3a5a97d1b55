"""Reference samples: used as sampled; one whose text encodes to more tokens does not stop a run."""

from pathlib import Path
from typing import Any

import pytest
from tests.runs.small_run import do, settings, write_data

from triphase.monitoring.progress import SilentProgress
from triphase.runs import pipeline
from triphase.runs.references import reference_samples
from triphase.runs.reward_training import run_reward
from triphase.runs.session import Run
from triphase.tokens.encoding import Encoded
from triphase.tokens.template import Template
from triphase.training.stopping import Stopped


def test_samples_that_read_longer_than_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a tokenizer whose pieces join otherwise when a text is read again."""
    write_data(tmp_path)
    written, read = list[Encoded](), list[Encoded]()
    whole = Template.response_ids

    def longer(self: Template, text: str, **options: Any) -> list[int]:
        ids = whole(self, text, **options)
        return ids * 40 if len(ids) > 3 else ids

    def sample(run: Run) -> None:
        shared = run.model()
        with monkeypatch.context() as patch:
            patch.setattr(Template, "response_ids", longer)
            written.extend(reference_samples(run, shared))  # nothing is in the store: sampled now, as it is
        pipeline.run_sampling(run)
        with monkeypatch.context() as patch:
            patch.setattr(Template, "response_ids", longer)
            read.extend(reference_samples(run, shared))

    run = do(settings(tmp_path, method="lora"), pipeline.run_sft, sample)
    limit = run.settings.model.max_length
    assert written and max(sample.length for sample in written) <= limit
    assert any(len(sample.response) > 3 for sample in written)
    assert all(len(sample.response) <= 3 for sample in read) and read
    assert "left out of the calibration: prompt" in (run.path / "log.jsonl").read_text()


def test_sampling_for_the_calibration_shows_progress_and_ends_when_asked(tmp_path: Path) -> None:
    write_data(tmp_path)
    tracks = list[str]()

    def sample(run: Run) -> None:
        shared = run.model()
        run.stop.asked = True
        with pytest.raises(Stopped):
            reference_samples(run, shared)
        run.stop.asked = False
        assert isinstance(run.progress, SilentProgress)
        tracks.extend(track.description for track in run.progress.tracks)

    do(settings(tmp_path, method="lora"), pipeline.run_sft, sample)
    assert "samples for calibration" in tracks


def test_scoring_for_the_calibration_shows_progress(tmp_path: Path) -> None:
    write_data(tmp_path)
    counts = list[tuple[str, int, int]]()

    def reward(run: Run) -> None:
        run_reward(run)
        assert isinstance(run.progress, SilentProgress)
        counts.extend((each.description, each.done, each.total) for each in run.progress.tracks)

    do(settings(tmp_path, method="lora"), pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, reward)
    ((_, done, total),) = [each for each in counts if each[0] == "scores for calibration"]
    assert done == total > 0
