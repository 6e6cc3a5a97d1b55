"""Names and ids that come from data or settings never become paths; nothing is written outside the run."""

import json
import os
from pathlib import Path

import pytest
from tests.runs import small_run
from tests.settings_text import settings_from_text

from triphase.errors import RunError, SettingsError, TriphaseError
from triphase.monitoring.log import run_log
from triphase.monitoring.metrics import MetricsWriter
from triphase.monitoring.samples import SampleLog
from triphase.records.files import append_json_lines, write_atomically
from triphase.runs import pipeline
from triphase.training.sealed import find_damage, write_directory

CLIMBING = ["../../../outside", "/tmp/outside-of-the-run", "..", ".", "~/x", "a/../../../../outside", "c:\\x",
            "%2e%2e%2foutside", "name\u202eeman", "CON", "-rf", "$(touch outside)",
            "'; DROP TABLE prompts; --", "a" * 300]  # fmt: skip


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_ids_that_look_like_paths_stay_ids(tmp_path: Path) -> None:
    """Every id, kind and text of the data tries to leave; the run ends, and only its own directory has changed."""
    folder = tmp_path / "deep" / "deeper"
    small_run.write_data(folder)
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    for index, row in enumerate(rows):
        row["id"] = CLIMBING[index][:200] if index < len(CLIMBING) else f"../{index}"
        row["kind"] = CLIMBING[index % len(CLIMBING)][:80]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [json.loads(line) for line in (folder / "demonstrations.jsonl").read_text().splitlines()]
    for index, row in enumerate(lines):
        row["kind"] = ["../../../outside", "/tmp/outside-of-the-run"][index % 2]
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    chosen = small_run.settings(folder)
    before, outside = tree(tmp_path), set(os.listdir("/tmp"))
    run = small_run.do(chosen, pipeline.run_all)
    made = tree(tmp_path) - before
    assert made and {name for name in made if not name.startswith("deep/deeper/runs")} == set()
    assert not {name for name in set(os.listdir("/tmp")) - outside if "outside" in name}
    with run.store() as store:
        assert {prompt.id for prompt in store.prompts()} >= {name[:200] for name in CLIMBING}


@pytest.mark.parametrize("name", CLIMBING)
def test_a_run_and_a_variant_have_names_and_not_paths(name: str) -> None:
    text = "model: {name: m}\ndata: {prompts: [{path: p.jsonl}]}\n"
    if name not in ("CON", "a" * 300):
        with pytest.raises(SettingsError, match=r"settings:1: name: .* is not allowed"):
            settings_from_text(f"name: {json.dumps(name)}\n{text}")
    if name != "a" * 300:
        with pytest.raises(SettingsError, match="not a name for a variant"):
            settings_from_text(f"name: x\n{text}variants: {{{json.dumps(name)}: {{}}}}\n")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A file outside that must keep its content."""
    place = tmp_path / "elsewhere"
    place.write_text("mine\n")
    return place


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "lines.jsonl", "log.jsonl", "config.yaml"])
def test_a_file_that_is_a_symbolic_link_is_not_written_through(tmp_path: Path, elsewhere: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(elsewhere)
    said: list[str] = []
    try:
        if name == "metrics.jsonl":
            MetricsWriter(run, tensorboard=False)
        elif name == "samples.jsonl":
            SampleLog(run / name).write(0, [{"a": 1}])
        elif name == "lines.jsonl":
            append_json_lines(run / name, [{"a": 1}])
        elif name == "config.yaml":
            write_atomically(run / name, "new")  # takes the link's place
            assert (run / name).read_text() == "new" and not (run / name).is_symlink()
        else:
            with run_log(run, said.append) as log:
                log.info("x")
            assert len(said) == 1 and "cannot be written" in said[0]
    except TriphaseError as error:
        assert f"{run / name}: is a symbolic link" in str(error) or "damaged line" in str(error)
    assert elsewhere.read_text() == "mine\n"


def test_a_manifest_cannot_name_a_file_outside(tmp_path: Path) -> None:
    place = tmp_path / "000001"
    write_directory(place, {"a.json": b"{}"})
    assert find_damage(place) is None
    for name in ("../secret", "/etc/hostname"):
        manifest = json.loads((place / "manifest.json").read_text())
        (place / "manifest.json").write_text(json.dumps({**manifest, "sha256": {name: "0"}}))
        assert find_damage(place) == f"manifest.json lists {name}, which is outside"


def test_the_lock_is_no_way_out(tmp_path: Path, elsewhere: Path) -> None:
    small_run.write_data(tmp_path)
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    (run / ".lock").symlink_to(elsewhere)
    with pytest.raises(RunError, match=r"\.lock: is a symbolic link"):
        small_run.do(small_run.settings(tmp_path))
    assert elsewhere.read_text() == "mine\n"
