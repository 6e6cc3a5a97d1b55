"""A full or read-only disk: one line with file and remedy, nothing half written, and the run can continue later."""

import errno
import json
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from tests.crash import pipeline as small
from tests.crash import processes
from tests.resilience.faulty_disk import FaultyDisk

from triphase.errors import RunError, StoreError
from triphase.monitoring.progress import SilentProgress
from triphase.runs import pipeline
from triphase.runs.session import prepare
from triphase.settings.schema import RunSettings
from triphase.store import open_store
from triphase.training.sealed import find_damage

FULL = "the disk is full; free some space, then run the same command again"
# What a run writes, in its order, and the name that the error must say.
WRITTEN = {
    "config": r"config\.yaml",
    "the mixture": r"sft/mixture\.json",
    "metrics of SFT": r"sft/metrics\.jsonl",
    "a checkpoint of SFT": r"sft/checkpoints/\d+",
    "final of SFT": r"sft/final",
    "timings": r"timings\.json",
    "labelling": r"labelling\.json",
    "a checkpoint of the reward model": r"reward/checkpoints/\d+",
    "held-out scores": r"reward/heldout\.jsonl",
    "calibration": r"reward/calibration\.json",
    "final of the reward model": r"reward/final",
    "samples of PPO": r"ppo/samples\.jsonl",
    "metrics of PPO": r"ppo/metrics\.jsonl",
    "a checkpoint of PPO": r"ppo/checkpoints/\d+",
    "final of PPO": r"ppo/final",
    "samples of a variant": r"arms/stopped/samples\.jsonl",
    "evaluation": r"evaluation/samples\.jsonl",
    "summary": r"summary\.json",
    "report": r"report\.html",
}


def whole(run: Path) -> list[str]:
    """What is half written in a run directory; a line of JSON that a power cut could cut is no exception."""
    found = small.leftovers(run)
    for path in run.rglob("*.json*"):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            try:
                json.loads(line)
            except ValueError:
                found.append(str(path.relative_to(run)))
    sealed = [*run.glob("**/final"), *run.glob("**/checkpoints/*")]
    return found + [f"{path.relative_to(run)}: {problem}" for path in sealed if (problem := find_damage(path))]


class Attempts:
    """Starts of one run, each in its own process."""

    def __init__(self, directory: Path, method: str = "lora") -> None:
        self.settings = small.settings(directory, method)
        self.run = Path(self.settings.output) / self.settings.name
        self.log = directory / "log"
        self.report = True

    def start(self, around: Any = None) -> tuple[int, str]:
        """Exit code and output."""
        self.log.unlink(missing_ok=True)
        settings, report = self.settings, self.report

        def work() -> None:
            with around or nullcontext():
                processes.pipeline(settings, report=report)

        code = processes.wait(processes.start(work, self.log))
        return code, self.log.read_text() if self.log.exists() else ""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    """A run on a disk with room."""
    processes.load_libraries()
    attempts = Attempts(tmp_path_factory.mktemp("calm"))
    code, said = attempts.start()
    assert code == 0, said
    return attempts


def same(run: Path, calm: Attempts) -> bool:
    """Whether a run ended as the calm one; what names its place is left out."""
    found, wanted = small.digests(run), small.digests(calm.run)
    assert set(found) == set(wanted)
    return [name for name in wanted if found[name] != wanted[name]] == []


@pytest.mark.parametrize("nth", [0, 1])
def test_a_full_disk_at_each_file_and_then_room_again(tmp_path: Path, calm: Attempts, nth: int) -> None:
    """``nth`` operation on the file: at its making, and when some of it is there."""
    attempts = Attempts(tmp_path)
    for title, pattern in WRITTEN.items():
        disk = FaultyDisk(
            attempts.run, lambda path, before, p=pattern: bool(re.match(p, path)) and before >= min(nth, 1)
        )
        code, said = attempts.start(disk.installed())
        assert code == processes.MISTAKEN, (title, code, said[-2000:])
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and FULL in errors[0], (title, said)
        assert re.search(pattern, errors[0]), (title, errors)
        assert "Traceback" not in said, title
        assert whole(attempts.run) == [], title
    code, said = attempts.start()
    assert code == 0, said
    assert same(attempts.run, calm)


def test_files_for_convenience_stop_nothing_and_are_told_once(tmp_path: Path, calm: Attempts) -> None:
    """The log and TensorBoard's files cannot be written from the first operation on."""
    attempts = Attempts(tmp_path)

    class Beside(FaultyDisk):
        def meet(self, name: str, place: Any) -> None:
            try:
                super().meet(name, place)
            finally:
                self.full = False  # there is room for the rest

    disk = Beside(attempts.run, lambda path, _: "tfevents" in path or path == "log.jsonl")
    notes = tmp_path / "notes"

    def noted(self: SilentProgress, message: str) -> None:
        with notes.open("a") as file:
            file.write(message + "\n")

    @contextmanager
    def around() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, disk.installed():
            patch.setattr(SilentProgress, "note", noted)
            yield

    code, said = attempts.start(around())
    assert code == 0, said
    assert same(attempts.run, calm) and not list(attempts.run.rglob("*tfevents*"))
    lines = notes.read_text().splitlines()
    assert len([line for line in lines if "log.jsonl cannot be written" in line]) == 1
    phases = [line for line in lines if "TensorBoard files are disabled" in line]
    assert len(phases) == 4 and len(set(phases)) == 4  # SFT, reward model, PPO, the variant: once each


def test_a_full_disk_under_the_store_is_told_and_the_labels_go_on(tmp_path: Path, calm: Attempts) -> None:
    """SQLite enforces the limit: a store may have only a few more pages than it has now."""
    attempts = Attempts(tmp_path)

    @contextmanager
    def limited() -> Iterator[None]:
        def limit(connection: Any, _: object) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {max(pages + 1, 1)}")

        event.listen(Engine, "connect", limit)
        try:
            yield
        finally:
            event.remove(Engine, "connect", limit)

    starts = 0
    while True:
        code, said = attempts.start(limited())
        if code == 0:
            break
        starts += 1
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert code == processes.MISTAKEN and len(errors) == 1, said
        assert f"labels.sqlite: {FULL.split(';')[0]} (database or disk is full); free some space" in errors[0]
        assert whole(attempts.run) == []
        if starts == 3:
            limited = nullcontext
    assert starts == 3 and same(attempts.run, calm)


class FileLimit:
    """No file may grow beyond a size, which is raised from start to start: the system itself refuses."""

    remedy = "the file size limit"

    def __init__(self, directory: Path) -> None:
        self.bytes = 300

    @contextmanager
    def around(self) -> Iterator[None]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.bytes, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def more(self) -> None:
        self.bytes *= 3

    def close(self) -> None:
        pass


class SmallDisk:
    """A file system in memory, of a size that is raised from start to start. For those who may mount one."""

    remedy = "the disk is full"

    def __init__(self, directory: Path) -> None:
        self.place, self.kilobytes = directory / "runs", 8
        self.place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(self.place)], check=True)

    def around(self) -> Any:
        return nullcontext()

    def more(self) -> None:
        self.kilobytes = int(self.kilobytes * 1.6) + 16
        command = ["mount", "-o", f"remount,size={self.kilobytes}k", str(self.place)]
        subprocess.run(command, check=True)

    def close(self) -> None:
        subprocess.run(["umount", str(self.place)], check=True)


def may_mount() -> bool:
    if os.geteuid() != 0:
        return False
    command = "d=$(mktemp -d) && mount -t tmpfs -o size=4k tmpfs $d && umount $d && rmdir $d"
    return subprocess.run(["sh", "-c", command], capture_output=True).returncode == 0


@pytest.mark.parametrize("kind", [FileLimit, SmallDisk] if may_mount() else [FileLimit])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_that_meets_a_real_limit_again_and_again_ends_whole(tmp_path: Path, kind: Any, method: str) -> None:
    limit, attempts = kind(tmp_path), Attempts(tmp_path, method)
    attempts.log = tmp_path / "log"
    attempts.report = method == "lora"
    refusals = []
    try:
        for _ in range(30):
            code, said = attempts.start(limit.around())
            if code == 0:
                break
            errors = [line for line in said.splitlines() if line.startswith("error: ")]
            assert code == processes.MISTAKEN and len(errors) == 1, said[-3000:]
            assert limit.remedy in errors[0], errors
            assert str(tmp_path) in errors[0], errors
            assert whole(attempts.run) == []
            refusals.append(errors[0])
            limit.more()
        assert code == 0 and len(refusals) >= 3, refusals
        assert all(find_damage(path) is None for path in attempts.run.glob("**/final"))
    finally:
        limit.close()


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Nothing can be written below it: truly, if this process may arrange it; otherwise by the same error."""
    if may_mount():
        for command in (["--bind", str(directory), str(directory)], ["-o", "remount,bind,ro", str(directory)]):
            subprocess.run(["mount", *command], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(directory)], check=True)
    elif os.geteuid() != 0:
        for path in [directory, *directory.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        try:
            yield
        finally:
            for path in [directory, *directory.rglob("*")]:
                path.chmod(path.stat().st_mode | 0o200)
    else:
        with FaultyDisk(directory, lambda *_: True, errno.EROFS).installed():
            yield


def do(settings: RunSettings) -> None:
    with prepare(settings, SilentProgress()) as run:
        pipeline.run_sft(run)


@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_run_directory_is_one_line(tmp_path: Path, begun: bool) -> None:
    settings = small.settings(tmp_path)
    Path(settings.output).mkdir(exist_ok=True)
    if begun:
        do(settings)
    said = r"runs/small.*: (the file system is read-only|no permission to write here).*choose another directory with"
    with read_only(Path(settings.output)), pytest.raises(RunError, match=said) as caught:
        do(settings)
    assert "\n" not in str(caught.value)
    do(settings)  # and on it goes


def test_a_read_only_store_is_one_line(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.add_prompts([])
    with (
        read_only(tmp_path),
        pytest.raises(StoreError, match=r"labels\.sqlite cannot be opened for writing .*permissions"),
    ):
        with open_store(tmp_path) as store, store.transaction() as connection:
            connection.exec_driver_sql("UPDATE prompts SET kind = 'x'")
