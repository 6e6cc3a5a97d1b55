"""One run directory, one configuration, one holder."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.runs.small_run import do, settings, write_data

from triphase.errors import RunError, SettingsError
from triphase.runs import pipeline
from triphase.runs.directory import RunDirectory
from triphase.settings.loading import load_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def hold(chosen) -> None:
    with RunDirectory(chosen).held():
        pass


def test_the_configuration_is_written_with_versions_and_fingerprints(folder: Path) -> None:
    hold(settings(folder))
    kept = yaml.safe_load((folder / "runs" / "small" / "config.yaml").read_text())
    assert kept["settings"] == settings(folder).model_dump(mode="json")
    assert kept["versions"].keys() >= {"python", "triphase", "torch", "transformers"}
    assert len(kept["data_fingerprints"]) == 2
    assert all(len(value) == 64 for value in kept["data_fingerprints"].values())


def test_the_same_configuration_may_come_again_and_changes_no_byte(folder: Path) -> None:
    hold(settings(folder))
    before = (folder / "runs" / "small" / "config.yaml").read_bytes()
    hold(settings(folder))
    assert (folder / "runs" / "small" / "config.yaml").read_bytes() == before


def test_threads_may_differ(folder: Path) -> None:
    hold(settings(folder))
    hold(settings(folder, threads=2))


def test_what_bounds_memory_may_be_lowered_and_is_noted(folder: Path) -> None:
    """The remedy for running out of memory is to lower these, so the run must continue with them."""
    begun = settings(folder)
    lower = {"microbatch_tokens": 64}
    less = begun.model_copy(
        update={
            **{name: getattr(begun, name).model_copy(update=lower) for name in ("sft", "reward", "ppo")},
            "sampling": begun.sampling.model_copy(update={"batch_size": 4}),
        }
    )
    do(begun, pipeline.run_sft)
    do(less, pipeline.run_sft)
    log = (folder / "runs" / "small" / "log.jsonl").read_text()
    for name in ("sft.microbatch_tokens", "reward.microbatch_tokens", "ppo.microbatch_tokens", "sampling.batch_size"):
        assert f"{name} was " in log
    with pytest.raises(RunError, match=r"sft\.batch_size is 32 there and 16 here, and sft has started with it"):
        hold(begun.model_copy(update={"sft": begun.sft.model_copy(update={"batch_size": 16})}))


def begin(run: Path, *phases: str) -> None:
    """Let it look as if phases had been trained up to a checkpoint."""
    for phase in phases:
        (run / phase / "checkpoints" / "000001").mkdir(parents=True)


def kept_config(folder: Path) -> dict:
    return yaml.safe_load((folder / "runs" / "small" / "config.yaml").read_text())


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"seed": 5}, "seed is 0 there and 5 here"), ({"method": "lora"}, "sft.method is full there and lora here")],
)
def test_another_configuration_is_refused_by_the_key(folder: Path, changes: dict, key: str) -> None:
    hold(settings(folder))
    begin(folder / "runs" / "small", "sft")
    with pytest.raises(RunError) as error:
        hold(settings(folder, **changes))
    message = str(error.value)
    assert key in message and "another configuration" in message and "sft has started" in message
    assert f"triphase branch {folder / 'runs' / 'small'} NAME --" in message


@pytest.mark.parametrize(
    ("begun", "free", "bound"),
    [
        ((), {"seed": 5, "adapters": {"layers": 1}, "ppo": {"iterations": 3}, "sft": {"epochs": 9}}, {}),
        (("sft",), {"ppo": {"iterations": 3}, "reward": {"epochs": 5}, "variants": {"a": {"epochs": 2}}}, {"seed": 1}),
        (("sft", "reward"), {"ppo": {"iterations": 3}}, {"reward": {"epochs": 5}}),
        (("sft", "reward", "ppo"), {"checkpoints": {"every_steps": 7}}, {"ppo": {"epochs": 9}}),
        (("sft", "ppo", "arms/a"), {"checkpoints": {"keep": 7}}, {"guards": {"back": 5}}),
        (("sft", "ppo"), {"checkpoints": {"keep": 8}}, {"rollouts": {"servers": 1}}),
    ],
)  # fmt: skip
def test_settings_of_phases_that_have_not_begun_may_change(folder: Path, begun: tuple, free: dict, bound: dict) -> None:
    base = {"variants": {"a": {}}} if "arms/a" in begun else {}
    hold(settings(folder, **base))
    begin(folder / "runs" / "small", *begun)
    with RunDirectory(settings(folder, **{**base, **free})).held() as directory:
        assert any("nothing that has started depends on it" in note for note in directory.notes)
    assert kept_config(folder)["settings"] == settings(folder, **{**base, **free}).model_dump(mode="json")
    with RunDirectory(settings(folder, **{**base, **free})).held() as directory:
        assert directory.notes == []
    if bound:
        with pytest.raises(RunError, match="another configuration"):
            hold(settings(folder, **{**base, **free, **bound}))


def append_prompt(folder: Path) -> None:
    with open(folder / "prompts.jsonl", "a") as file:
        file.write('{"id": "x", "prompt": "sun"}\n')


@pytest.mark.parametrize("begun", ["reward", "ppo"])
def test_changed_data_are_refused_by_the_file_where_something_has_read_it(folder: Path, begun: str) -> None:
    hold(settings(folder))
    begin(folder / "runs" / "small", begun)
    append_prompt(folder)
    with pytest.raises(
        RunError, match=rf"prompts\.jsonl has changed since .*small was started, and {begun} has read it"
    ):
        hold(settings(folder))


def test_a_repaired_file_that_nothing_has_read_is_taken_and_noted(folder: Path) -> None:
    hold(settings(folder))
    begin(folder / "runs" / "small", "sft")
    before = kept_config(folder)["data_fingerprints"]
    append_prompt(folder)
    with RunDirectory(settings(folder)).held() as directory:
        assert any("prompts.jsonl has changed since this run was started" in note for note in directory.notes)
    changed = {name for name, value in kept_config(folder)["data_fingerprints"].items() if before[name] != value}
    assert changed == {str(folder / "prompts.jsonl")}


def scored_by(folder: Path, function: str, **scorer: object):
    ppo = settings(folder).ppo.model_dump()
    return settings(folder, ppo={**ppo, "scorer": {"function": function, **scorer}})


@pytest.mark.parametrize(
    ("begun", "note"),
    [("ppo", "ppo started with the scores of the old function"), ("sft", "nothing that has started has read it")],
)
def test_a_changed_function_is_taken_and_noted(
    folder: Path, begun: str, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not be refused: who mends a function that failed gives the same command again."""
    monkeypatch.syspath_prepend(str(folder))
    module = folder / f"scores_of_{begun}.py"
    module.write_text("def score(prompts, responses): return [1.0] * len(responses)\n")
    chosen = scored_by(folder, f"{module.stem}:score")
    hold(chosen)
    begin(folder / "runs" / "small", begun)
    with RunDirectory(chosen).held() as directory:
        assert directory.notes == []
    module.write_text("def score(prompts, responses): return [2.0] * len(responses)\n")
    with RunDirectory(chosen).held() as directory:
        assert any(note in each and module.name in each for each in directory.notes)
    with RunDirectory(chosen).held() as directory:
        assert directory.notes == []


@pytest.mark.parametrize("options", [{"microbatch_tokens": 2}, {"scorer": {"weight": 2}}])
def test_options_of_a_scorer_are_nothing_else_whatever_they_are_called(folder: Path, options: dict) -> None:
    function = "tests.rewards.functions:lengths"
    hold(scored_by(folder, function, options={"microbatch_tokens": 1, "scorer": {"weight": 1}}))
    begin(folder / "runs" / "small", "ppo")
    kept = {"microbatch_tokens": 1, "scorer": {"weight": 1}}
    with pytest.raises(RunError, match=r"ppo\.scorer\.options\..* is 1 there and 2 here, and ppo has started with it"):
        hold(scored_by(folder, function, options={**kept, **options}))


def test_prompts_in_the_store_count_as_read(folder: Path) -> None:
    do(settings(folder, method="lora"), lambda run: _add_prompts(run))
    append_prompt(folder)
    with pytest.raises(RunError, match="sampling has read it"):
        hold(settings(folder, method="lora"))


def _add_prompts(run) -> None:
    with run.store() as store:
        store.add_prompts(run.prompts())


def test_a_copy_and_a_renamed_run_work_in_the_place_that_was_named(folder: Path) -> None:
    hold(settings(folder))
    run = folder / "runs" / "small"
    shutil.copytree(run, folder / "runs" / "copy")
    before = (run / "config.yaml").read_bytes()
    for name in ("copy", "renamed"):
        chosen = load_settings(folder / "runs" / name) if name == "copy" else None
        if chosen is None:
            shutil.move(folder / "runs" / "copy", folder / "runs" / "renamed")
            chosen = load_settings(folder / "runs" / "renamed")
        with RunDirectory(chosen).held() as directory:
            assert directory.path == folder / "runs" / name
            (directory.path / "mark").touch()
    assert (run / "config.yaml").read_bytes() == before and not (run / "mark").exists()
    shutil.move(folder / "runs" / "renamed", folder / "runs" / "a b")
    with pytest.raises(SettingsError, match="the name of a run's directory has letters"):
        load_settings(folder / "runs" / "a b")


@pytest.mark.parametrize("place", ["sft", "ppo/checkpoints", "labels.sqlite", "arms"])
def test_a_link_inside_a_run_is_refused(folder: Path, tmp_path: Path, place: str) -> None:
    hold(settings(folder))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = folder / "runs" / "small" / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(elsewhere)
    with pytest.raises(RunError, match=rf"{place}: is a symbolic link"):
        hold(settings(folder))
    assert list(elsewhere.iterdir()) == []


def test_an_emptied_store_is_not_filled_again_in_silence(folder: Path) -> None:
    chosen = settings(folder, method="lora")
    hold(chosen)
    run = folder / "runs" / "small"
    (run / "sampling.json").write_text('{"responses": 66}')
    with pytest.raises(RunError, match=r"holds 0 responses, but there were 66 when sampling\.json was written"):
        do(chosen, _add_prompts)
    (run / "sampling.json").unlink()
    (run / "labelling.json").write_text('{"rankings": 22}')
    with pytest.raises(RunError, match="holds 0 rankings, but there were 22"):
        do(chosen, _add_prompts)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sft": "long"}', '{"peaks_gb": []}', '{"peak_gb": null}'])
def test_damaged_times_are_begun_anew_with_a_word(folder: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    with RunDirectory(settings(folder)).held() as directory:
        (directory.path / "timings.json").write_text(content)
        with directory.timed("reward"):
            pass
        assert "timings.json is damaged" in caplog.text
        assert directory.timings().keys() == {"reward", "peaks_gb", "peak_gb"}


def test_a_configuration_that_cannot_be_read_is_refused(folder: Path) -> None:
    hold(settings(folder))
    (folder / "runs" / "small" / "config.yaml").write_text("settings: [")
    with pytest.raises(RunError, match=r"config\.yaml cannot be read"):
        hold(settings(folder))


HOLDER = """
import sys, time
from pathlib import Path
from tests.runs.small_run import settings
from triphase.runs.directory import RunDirectory
with RunDirectory(settings(Path(sys.argv[1]))).held():
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_second_process_is_refused_by_the_name_of_the_first_and_a_dead_ones_lock_is_void(
    folder: Path, root: Path
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(RunError, match=rf"is held by process {holder.pid} on .*choose another name"):
            hold(settings(folder))
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    hold(settings(folder))


def test_seconds_add_up_even_where_a_phase_fails(folder: Path) -> None:
    with RunDirectory(settings(folder)).held() as directory:
        with directory.timed("sft"):
            time.sleep(0.02)
        first = directory.timings()["sft"]
        with pytest.raises(ZeroDivisionError), directory.timed("sft"):
            raise ZeroDivisionError
        found = json.loads((directory.path / "timings.json").read_text())
    assert found["sft"] >= first >= 0.02
    assert found["peak_gb"] > 0
