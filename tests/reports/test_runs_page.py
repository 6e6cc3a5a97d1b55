"""Several runs on one page: their names, what differs in their settings, and whose samples are compared."""

import json
import shutil
from pathlib import Path

import pytest
from tests.reports.test_page import HOSTILE, Page, rewrite_samples, sections

from triphase.cli.main import main
from triphase.reports.contents import read_run
from triphase.reports.runs_page import merged_samples, name_of, runs_page, setting_table, write_runs_page


@pytest.fixture
def other(run_directory: Path) -> Path:
    """The same run with another KL coefficient, of which half of the prompts were asked."""
    found = Path(shutil.copytree(run_directory, run_directory.parent / "elsewhere" / run_directory.name))
    config = (found / "config.yaml").read_text()
    (found / "config.yaml").write_text(config.replace("kl_coefficient: 0.05", "kl_coefficient: 0.2"))
    samples = found / "evaluation" / "samples.jsonl"
    rows = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join(rows[: len(rows) // 2]))
    return found


def test_everything_of_both_is_there(run_directory: Path, other: Path) -> None:
    names = [name_of(each, [run_directory, other]) for each in (run_directory, other)]
    assert names[1] == "elsewhere/warm-demo" and names[0].endswith("/warm-demo") and names[0] != names[1]
    page = Page(write_runs_page(run_directory.parent / "runs.html", [run_directory, other]).read_text())
    text = sections(page)
    for name in names:
        assert f"{name} · better than the SFT policy: preferred in 9" in text
    assert "ppo.kl_coefficient0.050.2" in text and "ppo.clip_range" not in text
    assert "20 of" not in text and "Samples of each policy for 20 held-out prompts" in text
    assert len(page.ids) == len(set(page.ids)) and len(page.scripts) == 1 and page.wide_tables == 0


def test_samples_are_of_shared_prompts_and_gains_of_each_runs_own_start(run_directory: Path, other: Path) -> None:
    rewrite_samples(other, lambda row: row.update(score=row["score"] + (10.0 if row["policy"] == "ppo" else 9.0)))
    runs = {"a": read_run(run_directory), "b": read_run(other)}
    samples, policies = merged_samples(runs)
    assert policies == ["sft", "arm:a", "arm:b"]
    shared = {sample.prompt_id for sample in runs["b"].samples}
    assert {sample.prompt_id for sample in samples} == shared and len(shared) == 20
    assert all(sum(each.policy == policy for each in samples) == 80 for policy in policies)
    page = Page(runs_page("both", runs))
    keys = next(value for _, name, value in page.attributes if name == "data-keys")
    gains = {name: figures[1] for name, figures in json.loads(keys).items()}
    assert gains["arm:b"] == pytest.approx(gains["arm:a"] + 1.0, abs=1e-3) and gains["sft"] == 0


def test_one_id_of_two_prompts_is_not_one_prompt(run_directory: Path, other: Path) -> None:
    whole = read_run(other)
    first = whole.samples[0].prompt_id
    rewrite_samples(other, lambda row: row.update(prompt="another one") if row["prompt_id"] == first else None)
    samples, _ = merged_samples({"a": read_run(run_directory), "b": read_run(other)})
    shared = {sample.prompt_id for sample in whole.samples}
    assert {sample.prompt_id for sample in samples} == shared - {first}


def test_only_settings_that_differ_are_shown(run_directory: Path, other: Path) -> None:
    assert setting_table({"a": read_run(run_directory), "b": read_run(run_directory)}) == []
    assert setting_table({"a": read_run(run_directory), "b": read_run(other)}) == [
        ("ppo.kl_coefficient", ["0.05", "0.2"])
    ]


def test_hostile_names_and_samples_are_inert(run_directory: Path) -> None:
    rewrite_samples(run_directory, lambda row: row.update(response=HOSTILE, prompt=HOSTILE))
    run = read_run(run_directory)
    page = Page(runs_page(HOSTILE, {HOSTILE: run, "b": run}))
    assert "img" not in page.tags and len(page.scripts) == 1
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_from_the_command_line(run_directory: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [str(run_directory), str(other)]
    assert main(["report", *both]) == 0
    assert capsys.readouterr().out.strip() == str(run_directory.parent.resolve() / "runs.html")
    for words, said in (
        ([], "report needs a run"),
        ([*both, "--serve"], "--serve serves one run"),
        ([both[0], "--port", "9000"], "--port 9000: needs --serve"),
        ([both[0], both[0]], "a run is named twice"),
        (both * 3, "6 runs are too many"),
        ([both[0], "--to", str(run_directory.parent / "x.html")], "--to needs several runs"),
        ([*both, "--to", str(run_directory)], "must be a file in a directory that exists"),
        ([*both, str(run_directory.parent / "gone")], "is not a run directory"),
    ):
        assert main(["report", *words]) == 2, words
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
