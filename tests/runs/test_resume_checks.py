"""What `run` refuses in an existing directory, `check` refuses too, and writes nothing."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.runs.small_run import do, settings, write_data

from triphase.cli.main import main
from triphase.records.types import Message, Prompt
from triphase.store import open_store


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run whose fine-tuning has started; its settings are next to its data."""
    write_data(tmp_path)
    chosen = settings(tmp_path, method="lora")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json", by_alias=True)))
    do(chosen)
    run = tmp_path / "runs" / "small"
    (run / "sft" / "checkpoints" / "000001").mkdir(parents=True)
    return run


def change(run: Path, section: str, **values: Any) -> None:
    path = run.parents[1] / "small.yaml"
    found = yaml.safe_load(path.read_text())
    found[section] |= values
    path.write_text(yaml.safe_dump(found))


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


def emptied(run: Path) -> None:
    open_store(run / "labels.sqlite").close()
    (run / "sampling.json").write_text(json.dumps({"responses": 5}))


def ranked_for_an_unknown_campaign(run: Path) -> None:
    with open_store(run / "labels.sqlite") as store:
        store.add_prompts(Prompt(f"p{n}", (Message("user", "sun"),), "", "train") for n in range(3))
    (run / "sampling.json").write_text(json.dumps({"responses": 0}))
    change(run, "labeling", campaigns=["main", "typo"])


def moved_below_a_file(run: Path) -> None:
    path = run.parents[1] / "small.yaml"
    found = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**found, "output": str(run.parents[1] / "prompts.jsonl")}))


def replaced_by_a_file(run: Path) -> None:
    run.rename(run.with_name("other"))
    run.write_text("")


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "other settings": (lambda run: change(run, "sft", epochs=9), r"another configuration: sft\.epochs is 2\.0 there"),
    "other data": (
        lambda run: (run.parents[1] / "demonstrations.jsonl").write_text('{"prompt": "sun", "completion": "mud"}\n'),
        r"demonstrations\.jsonl has changed since",
    ),
    "a link": (lambda run: (run / "elsewhere").symlink_to("/tmp"), r"elsewhere: is a symbolic link"),
    "a pipe": (lambda run: os.mkfifo(run / "pipe"), r"pipe: is a pipe"),
    "a cut configuration": (
        lambda run: (run / "config.yaml").write_text("settings: ["),
        r"config\.yaml cannot be read",
    ),
    "an emptied store": (emptied, r"labels\.sqlite: holds 0 responses, but there were 5"),
    "a store that is none": (
        lambda run: (run / "labels.sqlite").write_bytes(b"x" * 9000),
        r"labels\.sqlite (cannot be|is not an SQLite file)",
    ),
    "a file in its place": (replaced_by_a_file, r"runs/small: is not a directory; choose another name"),
    "below a file": (moved_below_a_file, r"prompts\.jsonl: is not a directory; choose another name"),
    "an unknown campaign": (ranked_for_an_unknown_campaign, r"labeling\.campaigns: there is no campaign 'typo' in"),
    "a damaged note": (
        lambda run: (run / "sft" / "taken.json").write_text('{"place": 1}'),
        r"taken\.json is damaged",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_check_refuses_a_directory_that_run_refuses(begun: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage, says = CASES[name]
    damage(begun)
    before, config = everything(begun.parents[1]), str(begun.parents[1] / "small.yaml")
    assert main(["check", config]) == 2
    told = capsys.readouterr()
    assert everything(begun.parents[1]) == before
    assert main(["run", config]) == 2
    refused = capsys.readouterr().err.strip().splitlines()[-1]
    for line in (told.err.strip(), refused):
        assert re.search(says, line), line
    assert "are valid" not in told.out


def test_check_refuses_a_place_that_run_cannot_write_to(
    begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The superuser may write everywhere, so the answer of the system is replaced."""
    asked: list[tuple[object, int]] = []
    monkeypatch.setattr(os, "access", lambda path, mode, **_: asked.append((path, mode)))
    config = str(begun.parents[1] / "small.yaml")
    for command in ("check", "run"):
        assert main([command, config, "--name", "other"]) == 2
        assert re.search(r"runs/other: no permission to write here; choose another directory", capsys.readouterr().err)
    assert (begun.parent, os.W_OK | os.X_OK) in asked and not begun.with_name("other").exists()


def test_check_says_which_campaigns_are_to_be_begun(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(begun, "labeling", campaigns=["main", "style"])
    assert main(["check", str(begun.parents[1] / "small.yaml")]) == 0
    assert "the run waits for a campaign 'style'" in capsys.readouterr().out


def test_check_takes_what_run_takes_with_the_same_notes(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(begun, "ppo", iterations=3)
    open_store(begun / "labels.sqlite").close()
    before = everything(begun.parents[1])
    assert main(["check", str(begun.parents[1] / "small.yaml")]) == 0
    told = capsys.readouterr().out
    assert "ppo.iterations was 2 and is 3 now; nothing that has started depends on it" in told and "are valid" in told
    assert everything(begun.parents[1]) == before


def test_a_damaged_further_round_is_told_before_hours_have_passed(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = begun.parents[1] / "small.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "rounds": 2}))
    assert main(["check", str(path)]) == 0
    (begun / "rounds" / "2").mkdir(parents=True)
    (begun / "rounds" / "2" / "config.yaml").write_text("[")
    assert main(["check", str(path)]) == 2
    assert "rounds/2/config.yaml cannot be read" in capsys.readouterr().err
