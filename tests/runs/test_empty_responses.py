"""A run continues with samples without text (special tokens only, cut off): they are counted, not trained on."""

from pathlib import Path

import pytest
from tests.runs.small_run import do, settings, write_data

from triphase.errors import DataError
from triphase.records.files import read_json_lines
from triphase.rollouts import decoding
from triphase.rollouts.types import Generated
from triphase.runs import pipeline

STEPS = (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward)
PAD = 0


def emptied(monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    """Every ``share``-th response is one padding token, and not finished."""
    whole = decoding.LocalGenerator.generate

    def generate(self, requests, **options):
        found = whole(self, requests, **options)
        return [answer if number % share else Generated((PAD,), False) for number, answer in enumerate(found)]

    monkeypatch.setattr(decoding.LocalGenerator, "generate", generate)


def test_samples_without_text_are_left_out_with_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied(monkeypatch, 3)
    write_data(tmp_path)
    do(settings(tmp_path), *STEPS, pipeline.run_ppo, pipeline.run_evaluation, pipeline.run_report)
    run = tmp_path / "runs" / "small"
    log = (run / "log.jsonl").read_text()
    assert "22 of 66 sampled responses have no text and no end" in log
    assert "22 ranked responses have no token and are left out of the reward model's data" in log
    lines = read_json_lines(run / "reward" / "heldout.jsonl")
    assert lines and all(line["words_first"] and line["words_second"] for line in lines)
    assert (run / "report.html").is_file()


def test_where_none_has_text_the_cause_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied(monkeypatch, 1)
    write_data(tmp_path)
    with pytest.raises(DataError, match=r"no training prompt has a ranking"):
        do(settings(tmp_path), *STEPS)
