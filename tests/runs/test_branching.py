"""`triphase branch`: what is finished and unaffected is shared by reference; the rest is as in a separate run."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from tests.runs.small_run import do, files_of, ppo_alone, settings, write_data

from triphase.cli.main import main
from triphase.errors import RunError
from triphase.runs import pipeline
from triphase.runs.directory import RunDirectory
from triphase.runs.impact import impact
from triphase.runs.shared import require_shared, share
from triphase.runs.verification import verify_run
from triphase.settings.loading import load_settings
from triphase.training.artifacts import place_of, read, set_aside, write


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    small = settings(folder, method="lora").model_dump()
    changes = {"evaluation": {**small["evaluation"], "max_prompts": 2}}
    do(settings(folder, method="lora", **changes), pipeline.run_all)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run that a test may spoil."""
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "small"


def branch(run: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Create `runs/next`; the output on each phase."""
    assert main(["branch", str(run), "next", *words]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.replace("to do", "to-do").splitlines()]
    return {words[1]: f"{words[0]} {words[2]}" for words in lines if words[0] in ("shared", "copied", "to-do")}


def scratch(finished: Path, *words: str) -> Path:
    """A separate run with these settings, from scratch."""
    name, output = "-".join(words), finished / "whole"
    if not (output / name).exists():
        begun = load_settings(
            finished / "runs" / "small",
            {"name": name, "output": str(output), **dict(zip(words[::2], words[1::2], strict=True))},
        )
        do(begun, pipeline.run_all)
    return output / name


def results(run: Path) -> dict[str, bytes]:
    """What a run ends with: the weights of each PPO run and the evaluation."""
    rows = files_of(run, "evaluation/*.jsonl")
    return rows | {
        f"{phase}/{path.name}": path.read_bytes()
        for phase in ("sft", "reward", "ppo", "arms/other")
        for path in place_of(run, phase).glob("*.safetensors")
    }


PPO_CHANGE = ("ppo.kl_coefficient", "0.2")


def test_another_ppo_on_what_is_finished(finished: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(run, "**/*")
    said = branch(run, "--ppo.kl-coefficient", "0.2", capsys=capsys)
    assert said == {
        "sft": f"shared {run}/sft/final",
        "reward": f"shared {run}/reward/final",
        "labels.sqlite": "copied prompts, responses and rankings",
        "ppo": "to-do ppo.kl_coefficient was 0.05 and is 0.2",
        "evaluation": "to-do follows ppo",
    }
    made = run.parent / "next"
    assert not list(made.glob("*/final")) and not list(made.glob("*/checkpoints"))
    kept = [json.loads(line)["policy"] for line in (made / "evaluation/samples.jsonl").read_text().splitlines()]
    assert set(kept) == {"sft"}
    assert main(["run", str(made)]) == 0
    assert results(made) == results(scratch(finished, *PPO_CHANGE)) != results(run)
    assert files_of(run, "**/*") == before
    assert json.loads((made / "timings.json").read_text()).keys() - {"peaks_gb", "peak_gb"} == {"ppo", "evaluation"}
    assert (made / "labelling.json").read_bytes() == (run / "labelling.json").read_bytes()
    page = (made / "report.html").read_text()
    assert "not run yet" not in page and "holds 0 of" not in page
    assert all(verdict.same for verdict in verify_run(made))
    assert main(["run", str(made), "--sft.epochs", "3"]) == 2
    assert "sft has started with it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "shared", "copied"),
    [
        (("reward.epochs", "1"), {"sft"}, "prompts, responses and rankings"),
        (("labeling.overlap_share", "0.25"), {"sft"}, "prompts and responses, without the rankings"),
        (("sampling.responses_per_prompt", "2"), {"sft"}, None),
        (("sft.epochs", "1"), set(), None),
        (("seed", "1"), set(), None),
    ],
)
def test_what_is_shared_of_each_change(
    change: tuple[str, str], shared: set[str], copied: str | None, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = branch(run, f"--{change[0]}", change[1], capsys=capsys)
    assert {phase for phase, text in said.items() if text.startswith("shared")} == shared
    assert said.get("labels.sqlite") == (copied and f"copied {copied}")
    assert any(text.startswith(f"to-do {change[0]} was ") for text in said.values())
    assert said["ppo"].startswith("to-do")


@pytest.mark.slow
def test_other_rankings_of_the_same_responses(finished: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    branch(run, "--labeling.overlap-share", "0.25", "--run", capsys=capsys)
    assert results(run.parent / "next") == results(scratch(finished, "labeling.overlap_share", "0.25"))


def test_a_new_variant_shares_the_main_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = branch(run, "--variants.other.kl-coefficient", "0", "--run", capsys=capsys)
    assert said["ppo"] == f"shared {run}/ppo/final" and said["arms/other"] == "to-do is new"
    line = refused(capsys, "chat", str(run.parent / "next"), "--checkpoint", "1")
    assert f"shares PPO of {run}, which has the checkpoints; give that run instead" in line
    rows = [json.loads(line) for line in (run.parent / "next/evaluation/samples.jsonl").read_text().splitlines()]
    before = [json.loads(line) for line in (run / "evaluation/samples.jsonl").read_text().splitlines()]
    assert rows[: len(before)] == before and {row["policy"] for row in rows} == {"sft", "ppo", "arm:other"}
    # and a branch of that branch refers to the first of them
    assert main(["branch", str(run.parent / "next"), "third", "--variants.more.epochs", "2"]) == 0
    assert f"{run.parent}/next/arms/other/final" in capsys.readouterr().out
    assert place_of(run.parent / "third", "sft") == run / "sft/final"


def test_a_phase_is_done_again_where_it_is_asked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = branch(run, "--again", "reward", capsys=capsys)
    assert said["reward"] == "to-do is requested (--again)" and said["ppo"] == "to-do follows reward"
    assert said["labels.sqlite"].endswith("and rankings")


def test_labeling_is_spelled_as_in_the_settings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = branch(run, "--again", "labeling", capsys=capsys)
    assert said["labeling"] == "to-do is requested (--again)" and said["reward"] == "to-do follows labeling"
    line = refused(capsys, "run", str(run), "--labeling.overlap-share", "0.25")
    assert "and labeling has started with it" in line and "labelling" not in line


def test_a_file_that_has_changed_is_read_again(finished: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = finished / "demonstrations.jsonl"
    before = file.read_bytes()
    try:
        file.write_bytes(before + before.splitlines(keepends=True)[0].replace(b"d", b"e", 1))
        assert branch(run, capsys=capsys)["sft"] == f"to-do {file} has changed"
    finally:
        file.write_bytes(before)


def test_runs_that_are_moved_together_find_each_other(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    branch(run, "--ppo.epochs", "2", capsys=capsys)
    run.parent.rename(run.parent.parent / "moved")
    moved = run.parent.parent / "moved"
    assert place_of(moved / "next", "sft") == moved / "small/sft/final"
    assert main(["ppo", str(moved / "next")]) == 0


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_refusals(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = str(run)
    with RunDirectory(load_settings(run)).held():
        assert "is held by process" in refused(capsys, "branch", here, "next")
    assert "already exists" in refused(capsys, "branch", here, "small")
    assert "did you mean ppo.kl_coefficient?" in refused(capsys, "branch", here, "next", "--ppo.kl-coeficient", "1")
    assert "is not allowed" in refused(capsys, "branch", here, "../next")
    assert "no such phase" in refused(capsys, "branch", here, "next", "--again", "rewrad")
    assert "give its name once" in refused(capsys, "branch", here, "next", "--name", "other")
    assert "is not a run directory" in refused(capsys, "branch", str(run.parent), "next")
    assert [path.name for path in run.parent.iterdir()] == ["small"]


@pytest.mark.parametrize("name", ["sft/final/adapter_model.safetensors", "reward/heldout.jsonl", "labelling.json"])
def test_what_is_damaged_is_not_shared(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(bytes(content))
    line = refused(capsys, "branch", str(run), "next", "--ppo.epochs", "2")
    assert name.rpartition("/")[0] in line and (
        "cannot be shared" in line or "has changed since its phase ended" in line
    )
    assert [path.name for path in run.parent.iterdir()] == ["small"]


@pytest.mark.parametrize("what", ["gone", "damaged", "made again"])
def test_what_is_shared_must_stay(what: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    branch(run, "--ppo.epochs", "2", capsys=capsys)
    place = run / "sft/final"
    if what == "gone":
        shutil.rmtree(place)
    else:
        changed = place / ("manifest.json" if what == "made again" else "README.md")
        changed.write_text(changed.read_text() + " ")
    line = refused(capsys, "run", str(run.parent / "next"))
    assert f"{place}, which {run.parent}/next shares, " in line
    assert {
        "gone": f"is gone; put it back; without it `triphase report {run.parent}/next` alone works",
        "damaged": "the checksum of README.md differs",
        "made again": "has changed (it was created again",
    }[what] in line


def test_a_sum_of_scorers_keeps_its_units_where_ppo_is_shared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path)
    length = {"name": "length", "function": "tests.rewards.functions:lengths"}
    do(ppo_alone(tmp_path, ppo={"iterations": 1, "scorer": {"of": [length]}}), pipeline.run_all)
    run = tmp_path / "runs" / "small"
    assert branch(run, "--evaluation.max-prompts", "3", capsys=capsys)["ppo"].startswith("shared")
    assert files_of(run.parent / "next", "score_units/*") == files_of(run, "score_units/*") != {}
    assert main(["run", str(run.parent / "next")]) == 0
    capsys.readouterr()
    assert main(["branch", str(run), "other", "--ppo.seed", "5"]) == 0
    assert files_of(run.parent / "other", "score_units/*") == {}  # its PPO begins anew, and has a first rollout


def test_ppo_follows_a_reward_model_that_is_a_part_of_its_score(tmp_path: Path) -> None:
    write_data(tmp_path)
    parts = [{"name": "model", "kind": "model"}, {"name": "length", "function": "tests.rewards.functions:lengths"}]
    old = settings(tmp_path, method="lora", ppo={**settings(tmp_path).model_dump()["ppo"], "scorer": {"of": parts}})
    new = old.model_copy(update={"reward": old.reward.model_copy(update={"epochs": 5})})
    assert impact(old, new, {})["ppo"] == "follows reward"


def test_every_setting_that_a_phase_repeats_for_is_named(tmp_path: Path) -> None:
    old = settings(tmp_path)
    changes = {"iterations": 3, "kl_coefficient": 0.2}
    new = settings(tmp_path, ppo=old.model_dump(mode="json")["ppo"] | changes)
    assert impact(old, new, {})["ppo"] == "ppo.iterations was 2 and is 3, ppo.kl_coefficient was 0.05 and is 0.2"
    more = {"batch_size": 4, "minibatch_size": 4, "epochs": 2, "clip_range": 0.1, "discount": 0.9, "whiten": "never"}
    chosen = {key: value for key, value in more.items() if key in type(old.ppo).model_fields}
    assert len(chosen) > 4
    many = impact(old, settings(tmp_path, ppo=old.model_dump(mode="json")["ppo"] | changes | chosen), {})["ppo"]
    assert many.count(" was ") == 6 and many.endswith(f", and {len(chosen) - 4} more")


def test_nothing_is_to_do_where_nothing_has_changed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = branch(run, "--checkpoints.keep", "7", capsys=capsys)
    assert "evaluation" not in said and said["report"] == "to-do nothing else: no phase depends on what has changed"


def test_what_is_shared_and_has_changed_is_not_opened(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    branch(run, "--ppo.kl-coefficient", "0.2", capsys=capsys)
    following = run.parent / "next"
    manifest = run / "reward" / "final" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("{", "{ ", 1))
    to = str(run.parent / "exported")
    for words in (["check"], ["chat"], ["export", "--to", to], ["run"], ["branch", "another"]):
        assert main([words[0], str(following), *words[1:]]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and "has changed (it was created again, or extended)" in said[0], words


def test_a_run_whose_settings_leave_ppo_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"oak {n}", "chosen": "sun sun", "rejected": "rain", "split": "train"} for n in range(8)]
    rows += [{**rows[0], "prompt": f"elm {n}", "split": "heldout"} for n in range(4)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"preferences": [{"path": str(pairs)}]}
    alone = settings(tmp_path, method="lora", data=data, labeling={"source": "auto"}, evaluation={})
    run = tmp_path / "runs" / "small"
    do(alone, pipeline.run_all)
    assert main(["ppo", str(run), "--ppo.iterations", "1", "--ppo.batch-size", "8"]) == 0
    capsys.readouterr()
    before = files_of(run)
    for words in (["branch", str(run), "next"], ["extend", str(run)], ["sweep", str(run)]):
        more = {"branch": "0.5", "extend": "3", "sweep": "0.1,0.5"}[words[0]]
        name = "--ppo.iterations" if words[0] == "extend" else "--ppo.kl-coefficient"
        assert main([*words, name, more]) == 2
        said = capsys.readouterr().err
        assert f"PPO is not a step of {run}: " in said and f"triphase branch {run} NAME --sft.method none" in said
    assert files_of(run) == before
    assert main(["branch", str(run), "next", "--sft.method", "none"]) == 0
    assert main(["extend", str(run.parent / "next"), "--ppo.iterations", "3"]) == 2  # its PPO is shared
    assert f"its checkpoints are elsewhere; extend {run}" in capsys.readouterr().err


def test_what_a_branch_shares_is_found_where_an_extension_has_set_it_aside(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    write(run / "ppo/final", {"weights": b"1"}, None)
    share(other, other, "ppo", run, run / "ppo/final")
    for weights in (b"2", b"3"):  # extended twice
        set_aside(run, "ppo")
        write(run / "ppo/final", {"weights": weights}, None)
        require_shared(other)
        assert read(place_of(other, "ppo"), "weights") == b"1" and read(place_of(run, "ppo"), "weights") == weights
    shutil.rmtree(run / "ppo/final-before-1")
    with pytest.raises(RunError, match=r"ppo/final, which .*other shares, has changed"):
        require_shared(other)


def test_paths_on_the_command_line_of_a_run_start_at_the_working_directory(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a directory there is called like a hub id in the settings of the run."""
    here = tmp_path / "here"
    (here / "org" / "model").mkdir(parents=True)
    kept = load_settings(run)
    (here / "new.jsonl").write_text(Path(kept.data.prompts[0].path).read_text())
    (here / "r.py").write_text("def score(prompts, responses): return [0.0] * len(responses)\n")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["settings"]["reward"]["from"] = None
    config["settings"]["model"]["adapter"] = "org/model"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(here)
    over = {"data.prompts.0.path": "new.jsonl", "ppo.scorer.function": "r.py:score"}
    found = load_settings(run, over)
    assert found.data.prompts[0].path == str(here / "new.jsonl") and found.model.adapter == "org/model"
    assert found.ppo.scorer.function == f"{here}/r.py:score"
    assert found.data.preferences == kept.data.preferences and found.data.demonstrations == kept.data.demonstrations


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--data.prompts.0.path", "absent.jsonl"), "absent.jsonl: there is no such file"),
        (("--ppo.scorer.function", "absent.py:score"), "ppo.scorer.function: "),
    ],
)
def test_a_branch_with_an_absent_file_is_refused_before_it_exists(
    words: tuple[str, str], told: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "branch", str(run), "next", *words)
    assert told in line and str(Path.cwd()) in line, line
    assert not (run.parent / "next").exists()
