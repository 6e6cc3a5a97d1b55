"""Lists of runs, two beside one another, and the scores of a file."""

import json
from pathlib import Path

import pytest
from tests.runs.small_run import do, settings, write_data

from triphase.cli.main import main
from triphase.runs import pipeline
from triphase.runs.session import Run


def _trained(folder: Path, name: str, **changes: object) -> Path:
    def steps(run: Run) -> None:
        pipeline.run_sft(run)
        pipeline.run_sampling(run)
        pipeline.run_labeling(run)
        pipeline.run_reward(run)

    made = settings(folder, method="lora", **changes).model_copy(update={"name": name})
    do(made, steps)
    return folder / "runs" / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    write_data(made)
    _trained(made, "first")
    _trained(made, "second", seed=3)
    return made


def test_runs_are_listed_with_what_is_known_of_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = folder / "runs" / "second" / "summary.json"
    summary.write_text(json.dumps({"reward_model": {"accuracy": 0.71}, "ppo": {"gold_mean": None}, "seconds": 41}))
    assert main(["runs", str(folder / "runs"), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["run"].endswith("first") and first["finished"] == ["sft", "reward"]
    assert first["stands"] == "reward finished" and first["gold"] is None
    assert (second["stands"], second["accuracy"], second["gold"], second["seconds"]) == ("evaluated", 0.71, None, 41)
    assert main(["runs", str(folder / "runs")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["run", "first", "second"]
    assert "71 %" in shown[2] and "gold" not in shown[0]  # no column without a figure
    summary.write_text("{")
    assert main(["runs", str(folder / "runs")]) == 0
    assert "summary.json is damaged; `triphase report" in capsys.readouterr().out
    summary.unlink()


def test_what_is_no_directory_of_runs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert main(["runs", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_two_runs_differ_in_what_was_changed_and_not_in_where_they_lie(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (str(folder / "runs" / name) for name in ("first", "second"))
    assert main(["diff", first, second, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == [{"setting": "seed", "first": "0", "second": "3"}]
    write_data(tmp_path)
    elsewhere = str(_trained(tmp_path, "third"))
    assert main(["diff", first, elsewhere]) == 0
    shown = capsys.readouterr().out
    assert "the same" in shown and "demonstrations" not in shown
    assert main(["diff", first, str(tmp_path / "none")]) == 2


def test_the_scores_of_a_file_are_those_of_the_reward_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, rows = folder / "runs" / "first", folder / "rows.jsonl"
    rows.write_text(
        json.dumps({"prompt": "oak elm", "response": "sun", "mine": 7}) + "\n"
        + json.dumps({"prompt": "oak elm", "chosen": "sun", "rejected": "rain"}) + "\n"
        + json.dumps({"prompt": "oak " * 80, "response": "sun"}) + "\n"
    )  # fmt: skip
    assert main(["score", str(run), str(rows)]) == 0
    captured = capsys.readouterr()
    single, pair, long = map(json.loads, captured.out.splitlines())
    assert single["mine"] == 7 and single["score"] == pytest.approx(pair["score_chosen"], abs=1e-5)
    right = "100.0%" if pair["score_chosen"] > pair["score_rejected"] else "0.0%"
    assert f"1 comparisons; right on {right}" in captured.err
    assert long["score"] is None and "passes model.max_length = 64" in long["problem"]
    assert "1 rows have no score" in captured.err
    to = folder / "scores.jsonl"
    assert main(["score", str(run), str(rows), "--to", str(to)]) == 0
    assert to.read_text() == captured.out
    for words, problem in (
        (["--to", str(to)], "exists already"),
        (["--arm", "x"], "has no such variant; it has none"),
    ):
        assert main(["score", str(run), str(rows), *words]) == 2
        assert problem in capsys.readouterr().err
    assert main(["score", str(run), str(folder / "nothing.jsonl")]) == 2
    assert "there is no such file" in capsys.readouterr().err
