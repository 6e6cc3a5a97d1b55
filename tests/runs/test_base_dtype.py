"""`model.dtype: auto` keeps the dtype with which a run was started, whatever the machine would choose now."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs.small_run import do, settings, write_data

from triphase.cli.main import main
from triphase.models import loading
from triphase.runs import pipeline
from triphase.runs.base_dtype import in_kept_dtype, kept_dtype
from triphase.runs.branching import make_branch
from triphase.runs.opening import open_policy
from triphase.runs.verification import verify_run

AUTO = {"name": "embedded:tiny", "dtype": "auto", "max_length": 64}


def machine(monkeypatch: pytest.MonkeyPatch, *, is_faster: bool) -> None:
    """A machine on which bfloat16 is, or is not, faster than float32."""
    monkeypatch.setattr(loading, "prefers_bfloat16", lambda device: is_faster)


def automatic(folder: Path, **changes: Any) -> Any:
    return settings(folder, method="lora", **{"model": AUTO, **changes})


def test_a_run_goes_on_in_the_dtype_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path)
    run = tmp_path / "runs/small"
    machine(monkeypatch, is_faster=True)
    do(automatic(tmp_path), pipeline.run_sft)
    assert kept_dtype(run) == "bfloat16"
    machine(monkeypatch, is_faster=False)
    seen: list[Any] = []

    def look(of: Any) -> None:
        seen.append((of.model().backbone.dtype, of.directory.notes))

    do(automatic(tmp_path), look)
    [(dtype, notes)] = seen
    assert dtype == torch.bfloat16 and kept_dtype(run) == "bfloat16"
    assert [note for note in notes if "model.dtype: auto was bfloat16" in note and "float32 on this machine" in note]
    assert open_policy(run)[0].backbone.dtype == torch.bfloat16
    assert all(found.same for found in verify_run(run, 2))
    branch = make_branch(run, automatic(tmp_path, name="branch", seed=0)).path
    assert kept_dtype(branch) == "bfloat16"


def test_what_has_not_begun_takes_what_is_faster_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path)
    run = tmp_path / "runs/small"
    for is_faster, dtype in ((True, "bfloat16"), (False, "float32")):
        machine(monkeypatch, is_faster=is_faster)
        do(automatic(tmp_path), lambda of: None)
        assert kept_dtype(run) == dtype


def test_a_dtype_of_the_settings_is_not_kept_twice(tmp_path: Path) -> None:
    write_data(tmp_path)
    do(settings(tmp_path, method="lora"), pipeline.run_sft)
    assert kept_dtype(tmp_path / "runs/small") is None


def test_a_further_round_takes_the_dtype_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path)
    machine(monkeypatch, is_faster=True)
    do(automatic(tmp_path), pipeline.run_sft)
    machine(monkeypatch, is_faster=False)
    do(automatic(tmp_path, name="second", earlier_rounds=(str(tmp_path / "runs/small"),)), lambda of: None)
    assert kept_dtype(tmp_path / "runs/second") == "bfloat16"


def test_the_plan_of_a_run_is_that_of_the_dtype_in_which_it_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path)
    machine(monkeypatch, is_faster=True)
    run = do(automatic(tmp_path), pipeline.run_sft).path
    machine(monkeypatch, is_faster=False)
    assert main(["plan", str(run), "--json", str(tmp_path / "plan.json")]) == 0
    do(automatic(tmp_path), lambda of: of.model(), pipeline.run_report)
    for plan in (tmp_path / "plan.json", run / "plan.json"):
        assert json.loads(plan.read_text())["parameters"][0]["dtype"] == "bfloat16"
    whole = settings(tmp_path, model=AUTO)  # whose weights are trained in float32
    assert in_kept_dtype(whole, run) == whole
