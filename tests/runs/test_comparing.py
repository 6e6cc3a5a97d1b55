"""`triphase compare`: samples are kept, judges are asked in a fair order, and every text is escaped."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.runs.small_run import do, ppo_alone, write_data

from triphase.cli.main import main
from triphase.errors import SettingsError
from triphase.records.types import Ranking, Response
from triphase.reports.page import write_report
from triphase.runs import pipeline
from triphase.runs.human_judges import judged_by_people
from triphase.runs.sides import ComparedPolicy
from triphase.store import Store, open_store
from triphase.store.schema import items


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    optimizer = {"learning_rate": 3e-2, "schedule": "constant"}
    do(ppo_alone(folder, ppo={"iterations": 2, "optimizer": optimizer}), pipeline.run_all)
    return folder / "runs"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs")) / "small"


def found_in(directory: Path) -> Any:
    return json.loads((directory / "comparison.json").read_text())


def test_a_comparison_goes_on_where_it_ended(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = [f"{run}/sft", f"{run}/ppo/checkpoints/000001", str(run)]
    assert main(["compare", *sides, "--samples", "2"]) == 0
    out, directory = capsys.readouterr().out, run.parent / "compare-small-sft-vs-small-ppo-1-vs-small-ppo"
    assert "by gold" in out and "by reward" in out and f"page  {directory}/comparison.html" in out
    found = found_in(directory)
    assert [side["about"] for side in found["sides"]] == ["sft of small", "ppo@1 of small", "ppo of small"]
    assert [side["responses"] for side in found["sides"]] == [4, 4, 4]  # 2 prompts
    assert found["sides"][0]["reference_kl"]["value"] == 0.0 != found["sides"][2]["reference_kl"]["value"]
    assert found["sides"][1]["reference_kl"] != found["sides"][2]["reference_kl"]  # not one policy under two names
    gold, reward = found["criteria"]
    assert gold["name"] == "gold" and len(gold["win_rates"]) == 3 and set(gold["ratings_elo"]) == set(sides)
    lines = [json.loads(line) for line in (directory / "responses.jsonl").read_text().splitlines()]
    by_tokens = {side: [line["response"] for line in lines if line["name"] == side] for side in sides}
    means = {side: sum(map(len, texts)) / len(texts) for side, texts in by_tokens.items()}
    assert {side: each["value"] for side, each in reward["means"].items()} == pytest.approx(means)  # pays length

    kept = (directory / "responses.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(
            "triphase.runs.comparison_responses.sample_responses", lambda *_, **__: pytest.fail("all is sampled")
        )
        assert main(["compare", *sides, "--samples", "2"]) == 0
        assert main(["compare", *sides[:2], "--samples", "1", "--to", str(directory)]) == 0  # of fewer
    assert (directory / "responses.jsonl").read_bytes() == kept
    assert main(["compare", *sides, "--samples", "3", "--to", str(directory)]) == 0
    assert (directory / "responses.jsonl").read_bytes().startswith(kept)
    assert found_in(directory)["sides"][0]["responses"] == 6
    assert found_in(directory)["notes"] == []
    scores = directory / "scores.jsonl"
    scores.write_text(scores.read_text().replace('"score": ', '"score": 1', 1))  # one figure, by hand
    capsys.readouterr()
    assert main(["compare", *sides, "--samples", "3", "--to", str(directory)]) == 0
    assert "note: " + str(scores) + " was changed after the last comparison" in capsys.readouterr().out
    (note,) = found_in(directory)["notes"]
    assert note.split(" (")[0] in (directory / "comparison.html").read_text()
    capsys.readouterr()
    assert main(["compare", *sides, "--temperature", "0.5", "--to", str(directory)]) == 2
    assert "was started with temperature 1.0; use the same arguments" in capsys.readouterr().err

    shutil.rmtree(directory)  # the same bytes from the start
    assert main(["compare", *sides, "--samples", "2"]) == 0
    assert (directory / "responses.jsonl").read_bytes() == kept


def test_a_model_against_a_run_on_prompts_of_a_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, hostile = tmp_path / "prompts.jsonl", "sun <script>alert(1)</script> \u202e"
    trained = (run.parents[1] / "prompts.jsonl").read_text() if (run.parents[1] / "prompts.jsonl").exists() else ""
    assert trained == ""  # the copy of the run stands alone; its data is where it was
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in (hostile, "sun tree", hostile)))
    rule = tmp_path / "short.yaml"
    rule.write_text("kind: length\noptions: {most: 2}\n")
    words = [
        "compare",
        "embedded:tiny",
        str(run),
        "--prompts",
        str(prompts),
        "--by",
        str(rule),
        "--to",
        str(tmp_path / "c"),
    ]
    assert main(words) == 0
    found, page = found_in(tmp_path / "c"), (tmp_path / "c" / "comparison.html").read_text()
    assert found["asked"]["prompts"] == 2 and [each["name"] for each in found["criteria"]] == ["short"]
    assert found["sides"][0]["reference_kl"] is None
    assert any("for a model that does not belong to a run," in note for note in found["notes"])
    assert "<script" not in page and "&lt;script&gt;" in page and "\u202e" not in page


def judge(path: Path, address: str, **options: Any) -> list[str]:
    values = {"kind": "judge", "address": f"{address}/v1", "options": {"model": "m", "rubric": "be long", **options}}
    path.write_text(json.dumps(values))
    return ["--by", str(path)]


def shown(asked: Asked) -> tuple[str, str]:
    body = json.loads(asked.body["messages"][1]["content"].split("\n")[1])
    return body["first"]["response"], body["second"]["response"]


def verdict(text: str) -> Reply:
    return Reply(body={"choices": [{"message": {"content": json.dumps({"better": text})}}]})


def longer(asked: Asked) -> Reply:
    first, second = map(len, shown(asked))
    return verdict("tie" if first == second else "first" if first > second else "second")


def test_a_judge_sees_both_orders_and_its_bias_is_told(run: Path, tmp_path: Path) -> None:
    sides, file = [f"{run}/sft", f"{run}/ppo"], tmp_path / "judge.yaml"
    words = ["compare", *sides, "--samples", "3", "--to", str(tmp_path / "c")]
    with FakeServer(longer).running() as server:
        assert main([*words, *judge(file, server.address)]) == 0
        fair, asked = found_in(tmp_path / "c")["criteria"][0], len(server.asked)
        assert main([*words, *judge(file, server.address)]) == 0 and len(server.asked) == asked  # kept
    lines = [json.loads(line) for line in (tmp_path / "c" / "responses.jsonl").read_text().splitlines()]
    text = {(line["name"], line["prompt_id"], line["sample"]): line["response"] for line in lines}
    gaps = [
        len(text[sides[0], prompt, n]) - len(text[sides[1], prompt, n]) for side, prompt, n in text if side == sides[0]
    ]
    expected = sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps) / len(gaps)
    assert fair["win_rates"][0]["value"] == pytest.approx(expected)
    assert fair["judge"]["first_place_share"] == 0.5 and fair["judge"]["consistent"] == 1.0
    assert asked == 2 * (len(gaps) - fair["judge"]["same_text"])  # one text twice is even without a question
    with FakeServer(lambda _: verdict("first")).running() as server:
        assert main([*words, *judge(file, server.address, rubric="other")]) == 0
    biased = found_in(tmp_path / "c")["criteria"][0]
    assert biased["win_rates"][0]["value"] == 0.5 and biased["judge"]["first_place_share"] == 1.0
    assert biased["judge"]["consistent"] == 0.0
    with FakeServer(lambda _: verdict("both")).running() as server:
        assert main([*words, *judge(file, server.address, rubric="third", tries=2)]) == 0
    mute = found_in(tmp_path / "c")["criteria"][0]
    assert mute["without"] == len(gaps) - mute["judge"]["same_text"] and mute["judge"]["first_place_share"] is None


def test_damaged_files_are_told_by_their_lines(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", f"{run}/sft", str(run), "--to", str(tmp_path / "c")]
    assert main(words) == 0
    for name, changes in (
        ("responses.jsonl", ({"tokens": "x"}, {"response": 7}, {"reference_kl": True}, {"sample": None})),
        ("scores.jsonl", ({"key": 3}, {"score": "1"}, {"score": True})),
    ):
        path = tmp_path / "c" / name
        kept = path.read_text()
        first, *rest = kept.splitlines()
        for damaged in (*(json.dumps({**json.loads(first), **change}) for change in changes), "[]", "{}", "7", "{"):
            path.write_text("\n".join([*rest, damaged]) + "\n")
            assert main(words) == 2, damaged
            assert f"{name}:{len(rest) + 1}: damaged line" in capsys.readouterr().err
        path.write_text(kept)
    assert main(words) == 0


def test_a_scorer_is_given_the_columns_of_the_prompts(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    function, prompts, scorer = tmp_path / "mine.py", tmp_path / "prompts.jsonl", tmp_path / "by.yaml"
    function.write_text(
        "def score(prompts, completions, answer, **columns):\n    return [float(len(wanted)) for wanted in answer]\n"
    )
    prompts.write_text("".join(json.dumps({"prompt": f"oak {n}", "answer": "x" * n}) + "\n" for n in (1, 2, 3)))
    scorer.write_text(json.dumps({"function": f"{function}:score"}))
    words = ["--by", str(scorer), "--prompts", str(prompts), "--to", str(tmp_path / "c")]
    assert main(["compare", f"{run}/sft", str(run), *words]) == 0
    assert {json.loads(line)["score"] for line in (tmp_path / "c" / "scores.jsonl").read_text().splitlines()} == {
        1,
        2,
        3,
    }
    function.write_text("def score(prompts, completions, other, **columns):\n    return [0.0] * len(completions)\n")
    assert main(["compare", f"{run}/sft", str(run), *words[:-1], str(tmp_path / "d")]) == 2
    assert f"{function}:score needs other, which is neither a column of the prompts' records" in capsys.readouterr().err


def test_refusals(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.yaml").write_text("kind: lenght\n")
    (tmp_path / "model.yaml").write_text("kind: model\n")
    (tmp_path / "run.yaml").write_text("name: x\nppo: {scorer: {kind: length}}\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    sides = [f"{run}/sft", str(run)]
    for words, said in (
        (sides[:1], "compare needs two policies or more"),
        ([str(run), f"{run}/ppo"], "are the same policy"),
        ([f"{run}/reward", str(run)], "is not a policy of the run"),
        ([f"{run}/ppo/checkpoints/7", str(run)], "has no such checkpoint of PPO; there are"),
        ([f"{run}/arms/x", str(run)], "is not a policy of the run"),
        ([*sides, "--samples", "0"], "--samples 0: must lie between 1"),
        ([*sides, "--temperature", "0"], "--temperature 0.0: must be above 0"),
        ([*sides, "--by", str(tmp_path / "odd.yaml")], "did you mean length?"),
        ([*sides, "--by", str(tmp_path / "model.yaml")], "give --by reward"),
        (
            [*sides, "--by", str(tmp_path / "run.yaml")],
            "run.yaml: name: unknown setting; the file has what stands under",
        ),
        ([*sides, "--by", "gold", "--by", "gold"], "--by gold: is given twice"),
        ([*sides, "--by", "nothing"], "nothing: cannot be read"),
        ([*sides, "--prompts", str(tmp_path / "none.jsonl")], "none.jsonl"),
        ([*sides, "--to", str(tmp_path / "full")], "is not empty and not a comparison"),
        (["embedded:tiny", str(tmp_path / "full")], "there is no criterion to compare by"),
    ):
        assert main(["compare", *words]) == 2, words
        assert said in capsys.readouterr().err.strip().splitlines()[-1], words
    assert [path.name for path in run.parent.iterdir()] == ["small"]


def people_rank(store: Store, name: str, order: Callable[[Response], int]) -> None:
    """A ranking of every item by one person: 1 for the response that ``order`` gives the smallest number."""
    given = []
    with store.reading() as connection:
        shown = [(row.prompt_id, json.loads(row.response_ids)) for row in connection.execute(select(items))]
    responses = {each.id: each for each in store.responses()}
    for prompt, ids in shown:
        numbers = {id_: order(responses[id_]) for id_ in ids}
        places = {id_: 1 + sum(other < number for other in numbers.values()) for id_, number in numbers.items()}
        given.append(Ranking(f"{prompt}/{name}", prompt, name, places, tuple(ids), 1.0))
    store.add_rankings(given)


def test_people_judge_on_the_page_and_the_same_command_counts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides, directory = [f"{run}/sft", str(run)], run.parent / "compare-small-sft-vs-small-ppo"
    words = ["compare", *sides, "--by", "people", "--samples", "2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "no rankings yet" in said and f"`triphase label serve {directory}`" in said
    (people,) = found_in(directory)["criteria"]
    lines = [json.loads(line) for line in (directory / "responses.jsonl").read_text().splitlines()]
    texts = {(line["name"], line["prompt_id"]): line["response"] for line in lines if line["sample"] == 0}
    prompts = sorted({prompt for _, prompt in texts})
    same = [prompt for prompt in prompts if texts[sides[0], prompt] == texts[sides[1], prompt]]
    assert people["without"] == len(prompts) - len(same) > 0 and people["judge"]["same_text"] == len(same)
    assert people["judge"]["people"] == {"labelers": 0, "rankings": 0, "agreement": None}

    with open_store(directory) as store:
        assert {(each.model, each.prompt_id): each.text for each in store.responses()} == texts
        people_rank(store, "ann", lambda response: response.model == str(run))
    assert main(words) == 0
    (people,) = found_in(directory)["criteria"]
    asked, even = len(prompts) - len(same), 0.5 * len(same)
    assert people["win_rates"][0]["value"] == pytest.approx((asked + even) / len(prompts)), "ann prefers SFT"
    assert people["judge"]["people"] == {"labelers": 1, "rankings": asked, "agreement": None} and people["without"] == 0

    with open_store(directory) as store:
        for name in ("bob", "cy"):
            people_rank(store, name, lambda response: response.model != str(run))
    capsys.readouterr()
    assert main(words) == 0
    out, page = capsys.readouterr().out, (directory / "comparison.html").read_text()
    (people,) = found_in(directory)["criteria"]
    assert people["win_rates"][0]["value"] == pytest.approx((asked / 3 + even) / len(prompts)), "bob and cy prefer PPO"
    assert people["judge"]["people"]["agreement"]["value"] == pytest.approx(1 / 3), "bob and cy; not ann with either"
    assert f"{3 * asked} rankings by 3 people, blind" in out and "without a ranking" not in out
    assert "By people" in page and "shown in both orders" not in page
    report = write_report(run).read_text()
    assert 'id="people"' in report and "3 people, blind" in report


def test_people_judge_no_more_than_a_page_can_show(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a page shows at most 9"):
        judged_by_people([], [cast(ComparedPolicy, None)] * 10, tmp_path, seed=0)
    assert not any(tmp_path.iterdir())
