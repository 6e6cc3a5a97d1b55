"""Settings of a started run are changed in place: finished work stays, and stale results are computed again."""

import json
from pathlib import Path

import pytest
from tests.runs.small_run import do, files_of, settings, write_data

from triphase.errors import RunError
from triphase.monitoring.progress import SilentProgress
from triphase.monitoring.sums import changes
from triphase.runs import pipeline
from triphase.runs.directory import RunDirectory
from triphase.runs.session import prepare
from triphase.settings.schema import RunSettings

BY_FUNCTION = {"function": "tests.rewards.functions:lengths"}


def chosen(folder: Path, *, samples: int = 2, **changes: object) -> RunSettings:
    """PPO alone, scored by a function: the quickest whole run."""
    base = settings(folder).model_dump(mode="json")
    ppo = {**base["ppo"], "scorer": BY_FUNCTION, "iterations": 1, **changes.pop("ppo", {})}  # type: ignore[dict-item]
    evaluation = {"gold": "grammar", "samples_per_prompt": samples}
    fixed = {"sft": {"method": "none"}, "labeling": {"source": "none"}, "ppo": ppo, "evaluation": evaluation}
    return settings(folder, **{**fixed, **changes})


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    write_data(tmp_path)
    do(chosen(tmp_path), pipeline.run_all)
    return tmp_path


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "evaluation" / "samples.jsonl").read_text().splitlines()]


def test_more_samples_of_a_finished_run(finished: Path) -> None:
    run = finished / "runs" / "small"
    before, kept = rows(run), files_of(run)
    report = (run / "report.html").read_bytes()
    done = do(chosen(finished, samples=3), pipeline.run_all)
    assert any("evaluation.samples_per_prompt was 2 and is 3 now" in note for note in done.directory.notes)
    assert len(rows(run)) == len(before) * 3 // 2 and files_of(run) == kept
    assert [json.loads(x) for x in (run / "evaluation-before-1" / "samples.jsonl").read_text().splitlines()] == before
    assert (run / "report.html").read_bytes() != report and changes(run) == []


def test_a_stale_evaluation_is_not_shown(finished: Path) -> None:
    run = finished / "runs" / "small"
    with RunDirectory(chosen(finished, samples=3)).held():
        pass
    assert not (run / "summary.json").exists() and not (run / "report.html").exists() and changes(run) == []


def test_nothing_is_set_aside_where_a_change_is_refused(finished: Path) -> None:
    run = finished / "runs" / "small"
    before = files_of(run, "**/*")
    with pytest.raises(RunError, match=r"ppo\.epochs is 1 there and 2 here, and ppo has started with it"):
        do(chosen(finished, samples=3, ppo={"epochs": 2}))
    after = files_of(run, "**/*")
    assert {name for name in before if before[name] != after.get(name)} <= {".lock", "log.jsonl"}


def test_what_is_free_changes_no_result(finished: Path) -> None:
    run = finished / "runs" / "small"
    before = files_of(run, "evaluation/*")
    checkpoints = {"keep": 7, "every_steps": 2, "keep_best": 0}
    done = do(chosen(finished, checkpoints=checkpoints), pipeline.run_all)
    assert any("checkpoints.keep was 2 and is 7 now" in note for note in done.directory.notes)
    assert files_of(run, "evaluation/*") == before


def test_a_new_variant_of_a_finished_run_takes_the_old_summary_away(finished: Path) -> None:
    run = finished / "runs" / "small"
    more = chosen(finished, variants={"no-kl": {"kl_coefficient": 0.0}})
    do(more, lambda run: pipeline.run_ppo(run, "no-kl"))
    assert not (run / "summary.json").exists() and not (run / "report.html").exists()
    do(more, pipeline.run_evaluation, pipeline.run_report)
    assert {row["policy"] for row in rows(run)} == {"sft", "ppo", "arm:no-kl"} and (run / "report.html").is_file()


def test_whether_there_is_phase_1_cannot_be_changed_behind_ppo(finished: Path) -> None:
    with pytest.raises(RunError, match=r"sft\.method is none there and lora here, and ppo has started with it"):
        do(chosen(finished, sft={"method": "lora"}))


def test_a_run_that_lacks_memory_names_settings_with_which_it_continues(tmp_path: Path) -> None:
    write_data(tmp_path)
    with prepare(settings(tmp_path, method="lora"), SilentProgress()) as run:
        run.process_bytes = 0.0
        named = run.directory.shortage_of("sampling")
        assert named is not None and "sampling.batch_size: 16" in named and "model.dtype: bfloat16" in named
        assert run.directory.shortage_of("evaluation") is not None
        (run.path / "sft" / "checkpoints" / "000001").mkdir(parents=True)
        named = run.directory.shortage_of("sampling")
        assert named is not None and "sampling.batch_size: 16" in named and "model.dtype" not in named
        assert run.directory.shortage_of("evaluation") is None  # another dtype alone would help
