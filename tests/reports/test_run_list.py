"""The status of a run in a list, by the files that its steps have left."""

from pathlib import Path

import pytest

from triphase.reports import run_list
from triphase.reports.run_list import line_of


def test_a_run_that_waits_for_people_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: set[str] = set()
    monkeypatch.setattr(run_list, "has_left", lambda run, phase: phase in done)
    (tmp_path / "config.yaml").touch()
    seen = [line_of(tmp_path).stands]
    done.add("sft")
    seen.append(line_of(tmp_path).stands)
    for name in ("sampling.json", "labelling.json"):
        (tmp_path / name).touch()
        seen.append(line_of(tmp_path).stands)
    for phase in ("reward", "ppo"):
        done.add(phase)
        seen.append(line_of(tmp_path).stands)
    assert seen == [
        "begun",
        "sft finished",
        "responses sampled, not ranked",
        "responses ranked",
        "reward finished",
        "ppo finished",
    ]
