"""One run directory, one configuration, one holder."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.commands.small_run import do, settings, write_data

from triphase.commands import pipeline
from triphase.commands.rundir import RunDirectory
from triphase.errors import RunError


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
    """A run that ran out of memory is told to lower these, so it must go on with them."""
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
    with pytest.raises(RunError, match=r"ppo\.batch_size is 8 there"):
        hold(begun.model_copy(update={"ppo": begun.ppo.model_copy(update={"batch_size": 16})}))


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"seed": 5}, "seed is 0 there and 5 here"), ({"method": "lora"}, "sft.method is 'full' there and 'lora' here")],
)
def test_another_configuration_is_refused_by_the_key(folder: Path, changes: dict, key: str) -> None:
    hold(settings(folder))
    with pytest.raises(RunError) as error:
        hold(settings(folder, **changes))
    message = str(error.value)
    assert key in message and "another configuration" in message and "--name" in message


def test_changed_data_are_refused_by_the_file(folder: Path) -> None:
    hold(settings(folder))
    with open(folder / "prompts.jsonl", "a") as file:
        file.write('{"id": "x", "prompt": "sun"}\n')
    with pytest.raises(RunError, match=r"prompts\.jsonl has changed since .*small was begun; restore the file"):
        hold(settings(folder))


def test_a_configuration_that_cannot_be_read_is_refused(folder: Path) -> None:
    hold(settings(folder))
    (folder / "runs" / "small" / "config.yaml").write_text("settings: [")
    with pytest.raises(RunError, match=r"config\.yaml cannot be read"):
        hold(settings(folder))


HOLDER = """
import sys, time
from pathlib import Path
from tests.commands.small_run import settings
from triphase.commands.rundir import RunDirectory
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
