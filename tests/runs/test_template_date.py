"""A chat template that writes the date: a run keeps the day on which it was started, so its tokens stay the same."""

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.runs.small_run import do, settings, write_data
from transformers import AutoTokenizer

from triphase.demo.tiny import tiny_directory
from triphase.records.types import Message
from triphase.runs import pipeline
from triphase.runs.opening import open_policy
from triphase.runs.provenance import day_begun
from triphase.runs.verification import verify_run

DATED = (
    "{{ strftime_now('%Y') }} {% for m in messages %}{{ m.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}tree {% endif %}"
)
YEARS = ("2001", "2010")


def dated_settings(folder: Path, **model: Any) -> Any:
    """A run on the tiny model, whose chat template writes the year in a word of the vocabulary."""
    write_data(folder)
    base = folder / "base"
    if not base.exists():
        shutil.copytree(tiny_directory() / "model", base)
        text = (base / "tokenizer.json").read_text()
        for word, year in zip(("mud", "rust"), YEARS, strict=True):
            text = text.replace(f'"{word}"', f'"{year}"')
        (base / "tokenizer.json").write_text(text)
        made = AutoTokenizer.from_pretrained(base)
        made.chat_template = DATED
        made.save_pretrained(base)
    chosen = {"name": str(base), "dtype": "float32", "max_length": 64, **model}
    return settings(folder, method="lora", model=chosen)


def first_word(run: Path) -> str:
    template = open_policy(run)[0].template
    return str(template.tokenizer.convert_ids_to_tokens(template.prompt_ids([Message("user", "sun")])[0]))


def test_the_day_is_kept_and_a_repetition_on_another_day_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Day(date):
        year_now = 2001

        @classmethod
        def today(cls) -> date:
            return date(cls.year_now, 2, 3)

    monkeypatch.setattr("triphase.runs.provenance.date", Day)
    chosen, run = dated_settings(tmp_path), tmp_path / "runs" / "small"
    do(chosen, pipeline.run_sft)
    assert yaml.safe_load((run / "config.yaml").read_text())["begun"] == "2001-02-03" == day_begun(run)
    assert "writes the date: 2001-02-03 is used" in (run / "log.jsonl").read_text()
    Day.year_now = 2010
    assert first_word(run) == "2001"
    assert all(verdict.same for verdict in verify_run(run))
    do(chosen, pipeline.run_sft)  # and the run goes on
    # Another day would have been another run.
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "begun": "2010-02-03"}))
    assert first_word(run) == "2010"
    assert not all(verdict.same for verdict in verify_run(run))


def test_the_setting_goes_before_the_day(tmp_path: Path) -> None:
    do(dated_settings(tmp_path, template_date="2010-01-01"), pipeline.run_sft)
    assert first_word(tmp_path / "runs" / "small") == "2010"


def test_a_run_of_an_older_version_has_the_day_of_its_configuration(tmp_path: Path) -> None:
    import os

    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"settings": {"name": "small"}}))
    os.utime(path, (981_200_000, 981_200_000))
    assert day_begun(tmp_path) == "2001-02-03"
    assert day_begun(tmp_path / "none") == date.today().isoformat()
