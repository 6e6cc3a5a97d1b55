"""What `data.too_long` does with records, in `check` and `run` alike: left out, or with a shorter prompt."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.small import tokenizer

from triphase.cli.main import main
from triphase.datacheck.examiner import Examiner
from triphase.datacheck.run_data import RunData
from triphase.datacheck.shortening import shortened
from triphase.datacheck.survey import survey_data
from triphase.errors import DataError
from triphase.planning.plan import workload
from triphase.records.identity import prompt_id
from triphase.records.types import Message, Prompt
from triphase.settings.schema import RunSettings
from triphase.tokens.template import Template

LONG = " ".join(["oak"] * 40)


def settings(folder: Path, too_long: str, role: str, rows: Sequence[Any], limit: int = 20) -> RunSettings:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: dict[str, Any] = {role: [{"path": str(path)}], "too_long": too_long}
    small = {"max_response_tokens": 4}
    return RunSettings.model_validate({
        "name": "x", "model": {"name": "embedded:tiny", "max_length": limit}, "data": data, "sampling": small,
        "ppo": small, "labeling": {"source": "none"},
    })  # fmt: skip


def read(chosen: RunSettings) -> tuple[RunData, list[str]]:
    said: list[str] = []
    examiner = Examiner(Template(tokenizer()), chosen)
    return RunData(chosen, lambda: examiner, note=said.append), said


DEMONSTRATIONS = [
    {"prompt": "ash", "completion": "elm"},
    {"prompt": f"ash {LONG} fir", "completion": "elm"},
    {"messages": [{"role": "system", "content": "red"}, {"role": "user", "content": LONG},
                  {"role": "assistant", "content": "blue"}, {"role": "user", "content": "pine"},
                  {"role": "assistant", "content": "maple"}]},
]  # fmt: skip


def test_an_error_names_the_first(tmp_path: Path) -> None:
    data, _ = read(settings(tmp_path, "error", "demonstrations", DEMONSTRATIONS))
    with pytest.raises(DataError, match=r"a\.jsonl:2: prompt .* model\.max_length = 20; .*\(2 records of this file"):
        data.demonstrations()


@pytest.mark.parametrize("exact", [True, False])
def test_the_survey_counts_those_that_a_run_refuses_and_no_others(exact: bool, tmp_path: Path) -> None:
    """Six turns of one word and their end tokens are within the limit, however much a template might have added."""
    turns = [{"role": ("user", "assistant")[turn % 2], "content": "oak"} for turn in range(6)]
    chosen = settings(tmp_path, "error", "demonstrations", [*DEMONSTRATIONS, {"messages": turns}])
    survey = survey_data(chosen, examine=Examiner(Template(tokenizer()), chosen, exact=exact).problem).sources[0]
    assert (survey.records, survey.too_long, survey.refused) == (2, 2, 2)


def test_dropped_records_are_counted_by_check_and_run(tmp_path: Path) -> None:
    chosen = settings(tmp_path, "drop", "demonstrations", DEMONSTRATIONS)
    data, said = read(chosen)
    assert [one.response for one in data.demonstrations()[0]] == ["elm"]
    assert any("2 records exceed model.max_length and are left out (data.too_long: drop)" in line for line in said)
    survey = survey_data(chosen, examine=Examiner(Template(tokenizer()), chosen).problem).sources[0]
    assert (survey.records, survey.too_long, survey.left_out, survey.shortened, survey.refused) == (1, 2, 2, 0, 0)
    none, _ = read(settings(tmp_path, "drop", "demonstrations", DEMONSTRATIONS[1:]))
    with pytest.raises(DataError, match=r"a\.jsonl: every record exceeds model\.max_length"):
        none.demonstrations()


@pytest.mark.parametrize("exact", [True, False])
def test_prompts_lose_their_beginning(exact: bool, tmp_path: Path) -> None:
    chosen = settings(tmp_path, "truncate-prompt", "demonstrations", DEMONSTRATIONS)
    data, said = read(chosen)
    plain, cut, turns = data.demonstrations()[0]
    assert (plain.prompt.text, cut.response) == ("ash", "elm")
    assert cut.prompt.text.endswith("oak fir") and 8 < len(cut.prompt.text.split()) < 20
    assert [message.content for message in turns.prompt.messages] == ["red", "pine"] and turns.response == "maple"
    lengths = [item.length for item in data.encoded(data.demonstrations()[0])]
    assert max(lengths) == 20 and lengths[1] == 20  # no token more was taken than had to be
    assert any("2 prompts lose their beginning" in line for line in said)
    survey = survey_data(chosen, examine=Examiner(Template(tokenizer()), chosen, exact=exact).problem).sources[0]
    assert (survey.records, survey.too_long, survey.left_out, survey.shortened, survey.refused) == (3, 2, 0, 2, 0)


@pytest.mark.parametrize("parts", [1, 2])
def test_prompts_of_which_only_a_common_end_is_left_are_counted(
    parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by two processes, each of which reads every other line, and with those of the files before."""
    rows = [{"prompt": f"{word} {LONG}", "completion": "elm"} for word in ("ash", "fir", "ash", "pine")]
    chosen = settings(tmp_path, "truncate-prompt", "demonstrations", rows)
    (tmp_path / "b.jsonl").write_text(json.dumps({**rows[0], "prompt": f"red {LONG}"}) + "\n")
    sources = [source.model_copy(update={"path": str(tmp_path / name)}) for source in chosen.data.demonstrations
               for name in ("a.jsonl", "b.jsonl")]  # fmt: skip
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"demonstrations": sources})})
    data, said = read(chosen)
    assert len({one.prompt.id for source in data.demonstrations() for one in source}) == 1
    counts = [line.split()[1] for line in said if "of them are then the same prompt as another" in line]
    assert counts == ["2", "1"]
    if parts > 1:
        monkeypatch.setattr("triphase.datacheck.survey_parts.LARGE", 1)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
        monkeypatch.setattr("triphase.records.lines._BLOCK_BITS", 0)
    surveys = survey_data(chosen, examine=Examiner(Template(tokenizer()), chosen).problem).sources
    assert [(each.shortened, each.alike) for each in surveys] == [(4, 2), (1, 1)]


def test_a_demonstration_of_which_a_held_out_prompt_is_left_is_counted_as_one(tmp_path: Path) -> None:
    rows = [{"prompt": f"ash {LONG}", "completion": "elm", "split": "train"}]
    chosen = settings(tmp_path, "truncate-prompt", "demonstrations", rows)
    left = read(chosen)[0].demonstrations()[0][0].prompt.text
    rows += [{"prompt": left, "completion": "fir", "split": "heldout"}]
    chosen = settings(tmp_path, "truncate-prompt", "demonstrations", rows)
    assert survey_data(chosen, examine=Examiner(Template(tokenizer()), chosen).problem).leaked == 1
    assert survey_data(chosen).leaked == 0


def test_an_answer_is_never_cut(tmp_path: Path) -> None:
    chosen = settings(tmp_path, "truncate-prompt", "demonstrations", [{"prompt": "ash", "completion": LONG}])
    data, _ = read(chosen)
    with pytest.raises(DataError, match=r"a\.jsonl:1: prompt"):
        data.demonstrations()
    survey = survey_data(chosen, examine=Examiner(Template(tokenizer()), chosen).problem).sources[0]
    assert survey.refused == 1


def test_both_sides_of_a_comparison_have_one_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": f"ash {LONG}", "chosen": "elm", "rejected": "elm fir oak pine rowan willow"}]
    chosen = settings(tmp_path, "truncate-prompt", "preferences", rows)
    (comparison,) = read(chosen)[0].comparisons()
    template = Template(tokenizer())
    prompt = template.prompt_ids(comparison.prompt.messages)
    longer = max(len(template.response_ids(text)) for text in (comparison.chosen, comparison.rejected))
    assert len(prompt) + longer == 20
    assert comparison.prompt.id == prompt_id(comparison.prompt.messages)


def test_a_shorter_prompt_stays_on_its_side_of_the_split() -> None:
    whole = Prompt("given", (Message("user", LONG),), "kind", "heldout")
    short = shortened(whole, lambda one: len(one.text.split()) <= 3)
    assert short is not None and short.text == "oak oak oak" and (short.kind, short.split) == ("kind", "heldout")
    assert short.id != "given" and shortened(whole, lambda one: False) is None


def test_check_and_run_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "sun road stone rain light song".split()
    rows = [{"prompt": " ".join(words), "completion": word} for word in words] + [
        {"prompt": " ".join(words * 20), "completion": word} for word in words[:2]
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my.yaml").write_text(
        "name: x\noutput: runs\nmodel: {name: 'embedded:tiny', max_length: 32}\nsft: {epochs: 1}\n"
        "ppo: {max_response_tokens: 8}\nsampling: {max_response_tokens: 8}\n"
        "data: {demonstrations: [{path: a.jsonl}], too_long: truncate-prompt}\n"
    )
    for verb in ("check", "run"):
        assert main([verb, str(tmp_path / "my.yaml"), "--output", str(tmp_path / "runs")]) == 0
        heard = capsys.readouterr()
        assert "2 prompts lose their beginning" in heard.out + heard.err, verb


@pytest.mark.parametrize(("too_long", "count"), [("error", 3), ("drop", 1), ("truncate-prompt", 3)])
def test_a_plan_counts_the_records_that_a_run_trains_on(tmp_path: Path, too_long: str, count: int) -> None:
    rows = [{**row, "split": "train"} for row in DEMONSTRATIONS]
    found = workload(settings(tmp_path, too_long, "demonstrations", rows), Template(tokenizer())).demonstrations
    longest = max(sum(record) for record in found.sampled)
    assert found.count == count and (longest > 20) is (too_long == "error")


@pytest.mark.parametrize("too_long", ["error", "truncate-prompt"])
def test_text_without_a_prompt_is_never_cut(tmp_path: Path, too_long: str) -> None:
    data, _ = read(settings(tmp_path, too_long, "demonstrations", [{"text": "ash elm"}, {"text": LONG}]))
    with pytest.raises(DataError, match=r"a\.jsonl:2: text '.*' has 41 tokens and exceeds model\.max_length = 20"):
        data.demonstrations()
    data, said = read(settings(tmp_path, "drop", "demonstrations", [{"text": "ash elm"}, {"text": LONG}]))
    assert [one.response for one in data.demonstrations()[0]] == ["ash elm"] and "1 records exceed" in said[0]
