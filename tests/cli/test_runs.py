"""Lists of runs, the comparison of two, and the scores of a file."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.runs.small_run import do, ppo_alone, settings, write_data

import triphase
from triphase.cli.main import main
from triphase.errors import RunError
from triphase.reports.summary_file import keep_summary
from triphase.runs import pipeline
from triphase.runs.file_scores import FileScores
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
    os.utime(folder / "runs" / "first" / "config.yaml")  # written again, as by an extension; it began first
    known = {"reward_model": {"accuracy": 0.71}, "ppo": {"gold_mean": None, "proxy_gain": 0.25}, "seconds": 41}
    keep_summary(summary, known)
    assert main(["runs", str(folder / "runs"), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["run"].endswith("first") and first["finished"] == ["sft", "reward"]
    assert first["stands"] == "reward finished" and first["gold"] is None
    assert [second[name] for name in ("accuracy", "gold", "gain", "seconds")] == [0.71, None, 0.25, 41]
    assert second["stands"] == "reward finished"  # a summary alone is no evaluation
    assert main(["runs", str(folder / "runs")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["run", "first", "second"]
    assert "71 %" in shown[2] and "gold" not in shown[0]  # no column without a figure
    kept = summary.read_text()
    for text, problem in (
        ("{", "is damaged"),
        ("{}", "has no checksum"),
        (kept.replace("0.71", "0.91"), "was changed after it was written"),
        (kept.replace("0.25", "NaN"), "was changed after it was written"),
        (kept.replace("sha256", "sha257"), "has no checksum"),
    ):
        summary.write_text(text)
        for words in (["runs", str(folder / "runs")], ["diff", str(folder / "runs" / "first"), str(summary.parent)]):
            assert main(words) == 0
            shown = capsys.readouterr()
            assert f"summary.json {problem}" in " ".join(shown.out.split()), (text, words)
            assert "`triphase report " in shown.out and "91 %" not in shown.out and "0.25" not in shown.out
    with pytest.raises(RunError, match="has no checksum"):
        triphase.Run(summary.parent).summary  # noqa: B018
    summary.unlink()
    os.mkfifo(summary)
    assert main(["runs", str(folder / "runs")]) == 0
    assert "summary.json is not a regular file; remove it, and `triphase report" in " ".join(
        capsys.readouterr().out.split()
    )
    summary.unlink()


def test_what_is_no_directory_of_runs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert main(["runs", str(tmp_path)]) == 2
    assert "contains no run" in capsys.readouterr().err
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


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def score(run: Path, path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[dict[str, Any]], str]:
    """The rows that are returned, and the summary on stderr."""
    assert main(["score", str(run), str(path), *words]) == 0
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_the_scores_of_a_file_are_those_of_the_reward_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "runs" / "first"
    rows = lines(
        folder / "rows.jsonl",
        {"prompt": "oak elm", "response": "sun", "mine": 7},
        "{",
        {"prompt": "oak " * 80, "response": "sun"},
        {"prompt": "oak elm", "response": "rain"},
        {"prompt": "oak elm"},
    )
    (sun, broken, long, rain, without), said = score(run, rows, capsys)
    assert sun["mine"] == 7 and "2 responses; mean score" in said and "3 rows have no score" in said
    assert [row["score"] for row in (broken, long, without)] == [None] * 3
    assert "rows.jsonl:2: " in broken["problem"] and broken["row"] == "{"
    assert "rows.jsonl:3: " in long["problem"] and "exceeds model.max_length = 64" in long["problem"]
    assert "rows.jsonl:5: " in without["problem"]
    model = triphase.load_reward_model(run)
    expected = model.score(["oak elm"] * 2, ["sun", "rain"])
    assert [sun["score"], rain["score"]] == pytest.approx(expected, abs=1e-5)
    pairs = [
        {"prompt": "oak elm", "chosen": "sun", "rejected": "rain"},
        {"prompt": "oak elm", "chosen": "rain", "rejected": "sun"},
        {"prompt": "elm", "chosen": "sun", "rejected": "rain", "rejected_finished": False},
    ]
    (first, _, cut), said = score(run, lines(folder / "pairs.jsonl", *pairs), capsys)
    assert [first["score_chosen"], first["score_rejected"]] == pytest.approx(expected, abs=1e-5)
    assert cut["score_rejected"] == pytest.approx(model.score(["elm"], ["rain"], finished=[False])[0], abs=1e-5)
    assert cut["score_rejected"] != pytest.approx(model.score(["elm"], ["rain"])[0], abs=1e-3)
    right = 1 + (cut["score_chosen"] > cut["score_rejected"])
    assert f"3 comparisons; correct on {100 * right / 3:.0f} %" in said


def test_the_interval_of_comparisons_is_over_prompts() -> None:
    found = FileScores()
    for prompt, right in (("a", [1.0] * 50), ("b", [0.0] * 50)):
        found.right[prompt] += right
    assert found.accuracy is not None and found.comparisons == 100
    # Two prompts, each all right or all wrong: whole prompts are drawn, so nothing is known.
    assert (found.accuracy.value, found.accuracy.low, found.accuracy.high) == (0.5, 0.0, 1.0)


def test_equal_scores_of_a_comparison_are_half_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    do(ppo_alone(tmp_path, ppo={}), lambda run: None)  # the score is the length
    pairs = [
        {"prompt": "oak", "chosen": "sun", "rejected": "elm"},
        {"prompt": "fir", "chosen": "rain", "rejected": "sun"},
    ]
    _, said = score(tmp_path / "runs" / "small", lines(tmp_path / "pairs.jsonl", *pairs), capsys)
    assert "2 comparisons; correct on 75 %" in said


def test_what_a_scoring_function_is_given_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    function = tmp_path / "mine.py"
    function.write_text(
        "def score(prompts, completions, answer, **columns):\n"
        "    assert all(isinstance(prompt, str) for prompt in prompts), prompts\n"
        "    return [float(text == wanted) for text, wanted in zip(completions, answer)]\n"
    )
    do(ppo_alone(tmp_path, ppo={"scorer": {"function": f"{function}:score"}}), lambda run: None)
    rows = lines(
        tmp_path / "rows.jsonl",
        {"prompt": "1 + 1", "response": "2", "answer": "2"},
        {"prompt": "1 + 2", "response": "4", "answer": "3"},
    )
    found, _ = score(tmp_path / "runs" / "small", rows, capsys)
    assert [row["score"] for row in found] == [1.0, 0.0]
    without = lines(tmp_path / "without.jsonl", {"prompt": "1 + 1", "response": "2"})
    assert main(["score", str(tmp_path / "runs" / "small"), str(without)]) == 2
    assert "mine.py:score needs answer, which is neither a column of the prompts' records" in capsys.readouterr().err


def test_a_row_on_which_the_function_fails_has_a_problem_and_the_others_a_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path)
    function = tmp_path / "mine.py"
    function.write_text("def score(prompts, responses): return [1 / (len(text) - 3) for text in responses]\n")
    do(ppo_alone(tmp_path, ppo={"scorer": {"function": f"{function}:score"}}), lambda run: None)
    run = tmp_path / "runs" / "small"
    texts = ["rain", "sun", "water", "oak"]
    rows: list[dict[str, str]] = [{"prompt": "a", "response": text} for text in texts]
    found, said = score(
        run, lines(tmp_path / "rows.jsonl", *rows, {"prompt": "a", "chosen": "b", "rejected": "c"}), capsys
    )
    assert [row["score"] for row in found] == [1.0, None, 0.5, None, None] and "3 rows have no score" in said
    assert found[1]["problem"].endswith("mine.py:score raised ZeroDivisionError: division by zero"), found[1]
    assert "chosen, rejected; the first row of the file has one response, and so must all others" in found[4]["problem"]
    assert main(["score", str(run), str(lines(tmp_path / "all.jsonl", rows[1], rows[3]))]) == 2
    assert "(response 0: 'sun'); fix the function" in capsys.readouterr().err


def test_a_response_without_a_score_counts_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)

    def scored(asked: Asked) -> Reply:
        texts = [item["response"] for item in asked.body["items"]]
        return Reply(body={"scores": [None if "mud" in text else float(len(text)) for text in texts]})

    with FakeServer(scored).running() as server:
        do(ppo_alone(tmp_path, ppo={"scorer": {"address": server.address}}), lambda run: None)
        _count(tmp_path, capsys)


def _count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "oak", "response": "sun", "half": "\ud800", "score": 9}, {"prompt": "oak", "response": "mud"}]
    (scored, without), said = score(tmp_path / "runs" / "small", lines(tmp_path / "rows.jsonl", *rows), capsys)
    assert scored["score"] == 3.0 and scored["half"] == "\ud800"  # what came in goes out
    assert without["score"] is None and without["problem"].endswith("gave no score")
    assert "1 response; mean score 3.000" in said and "1 row has no score" in said
    assert "note: the file has columns with the names of results, which replace them: score\n" in said
    pairs = [
        {"prompt": "oak", "chosen": "river", "rejected": "elm"},
        {"prompt": "oak", "chosen": "mud", "rejected": "a"},
    ]
    (_, without), said = score(tmp_path / "runs" / "small", lines(tmp_path / "pairs.jsonl", *pairs), capsys)
    assert without["score"] is None and "1 comparison; correct on 100 %" in said
    table = pytest.importorskip("pyarrow").Table.from_pylist(
        [{"prompt": "oak", "response": "sun", "weight": float("nan"), "more": [float("inf"), 1.0]}]
    )
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "rows.parquet")
    (row,), _ = score(tmp_path / "runs" / "small", tmp_path / "rows.parquet", capsys)
    assert (row["weight"], row["more"]) == (None, [None, 1.0])
    to = tmp_path / "to.jsonl"
    score(tmp_path / "runs" / "small", tmp_path / "rows.jsonl", capsys, "--to", str(to))
    assert json.loads(to.read_text().splitlines()[0])["half"] == "\ud800"


def test_answers_that_are_not_to_be_learned_are_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "user", "content": "oak elm"}, {"role": "assistant", "content": "sun", "weight": 0}]
    rows = [{"prompt": "oak elm", "completion": "sun", "label": label} for label in (True, False, 1, 0)]
    marked = lines(folder / "marked.jsonl", *rows, {"messages": turns}, {"prompt": "oak elm", "completion": turns[1:]})
    found, said = score(folder / "runs" / "first", marked, capsys)
    assert "6 responses; mean score" in said
    assert [row["score"] for row in found] == pytest.approx([found[0]["score"]] * 6, abs=1e-5)


def test_rankings_and_votes_are_not_scored_which_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row, form in (
        ({"prompt": "oak", "responses": ["sun", "elm"], "places": [1, 2]}, "rankings"),
        ({"prompt": "oak", "response_a": "sun", "response_b": "elm", "winner": "a"}, "votes"),
        ({"instruction": "oak", "completions": [{"response": "sun", "overall_score": 3}] * 2}, "UltraFeedback"),
    ):
        assert main(["score", str(folder / "runs" / "first"), str(lines(folder / "ranked.jsonl", row))]) == 2
        said = capsys.readouterr().err
        assert f"ranked.jsonl:1: read as {form}" in said and "data.preferences" not in said
        assert said.rstrip().endswith("are scored: write one of these for each response or pair")


def test_scores_go_to_a_new_file_and_what_cannot_be_scored_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, to = folder / "runs" / "first", folder / "scores.jsonl"
    rows = lines(folder / "one.jsonl", {"prompt": "oak elm", "response": "sun"})
    score(run, rows, capsys, "--to", str(to))
    assert json.loads(to.read_text())["response"] == "sun"
    bad = lines(folder / "bad.jsonl", {"prompt": "oak"})
    for words, problem in (
        ([str(rows), "--to", str(to)], "already exists"),
        ([str(rows), "--variant", "x"], "has no such variant; it has none"),
        ([str(folder / "nothing.jsonl")], "there is no such file"),
        ([str(bad)], r"none of its records can be used; the first: .*bad.jsonl:1: "),
    ):
        assert main(["score", str(run), *words]) == 2
        assert re.search(problem, capsys.readouterr().err)


def test_the_name_of_a_directory_does_not_act_on_the_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "\x1b[31mred\u202e"
    shutil.copytree(folder / "runs", place)
    (place / "first" / "sums.json").write_text("{")
    for words in (["report", place / "first"], ["report", place / "first", place / "second"], ["runs", place]):
        assert main([str(word) for word in words]) == 0
        printed = capsys.readouterr()
        assert not set("\x1b\u202e") & set(printed.out + printed.err), words
        assert "⟦U+001B⟧[31mred" in printed.out or words[0] == "runs"
