"""`init` writes a configuration that `check` accepts; `settings` and `doctor` answer queries."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from triphase.cli.main import main
from triphase.datacheck.agenda import todo
from triphase.settings.loading import load_settings

WORDS = "sun road stone rain light song".split()
DEMONSTRATIONS = [{"prompt": f"{a} {b}", "completion": c} for a in WORDS for b in WORDS for c in WORDS[:2]]
PREFERENCES = [{"prompt": f"{a} {b}", "chosen": "sun song", "rejected": "mud rust"} for a in WORDS for b in WORDS]
PROMPTS = [{"prompt": f"{a} {b} rain"} for a in WORDS for b in WORDS]
TINY = ["--model", "embedded:tiny", "--max-length", "64", "--response-tokens", "8"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("d", DEMONSTRATIONS), ("p", PREFERENCES), ("q", PROMPTS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize(
    ("files", "roles", "source"),
    [
        (["d.jsonl"], {"demonstrations"}, "none"),
        (["p.jsonl"], {"preferences"}, "none"),
        (["d.jsonl", "p.jsonl"], {"demonstrations", "preferences"}, "none"),
        (["d.jsonl", "prompts:d.jsonl", "--people"], {"demonstrations", "prompts"}, "people"),
        (["d.jsonl", "q.jsonl"], {"demonstrations", "prompts"}, "people"),
        (["d.jsonl", "q.jsonl", "p.jsonl"], {"demonstrations", "prompts", "preferences"}, "none"),
    ],
)
def test_what_is_written_is_accepted(
    files: list[str], roles: set[str], source: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", *files, *TINY, "--yes", "--to", "sub/my.yaml"]) == 0
    text = (folder / "sub" / "my.yaml").read_text()
    chosen = load_settings(Path("sub/my.yaml"))
    assert {role for role in ("demonstrations", "prompts", "preferences") if getattr(chosen.data, role)} == roles
    assert chosen.labeling.source == source and chosen.name == "my" and chosen.model.max_length == 64
    assert text.count("    # ") > 8
    steps = todo(chosen)  # a section is there for what the run does, and PPO can follow a reward model
    assert ("\nsampling:" in text, "\nreward:" in text) == ("sampling" in steps, "reward" in steps)
    assert ("\nppo:" in text) == ("ppo" in steps or roles == {"preferences"})
    assert main(["check", "sub/my.yaml"]) == 0
    assert "are valid" in capsys.readouterr().out


def test_five_questions_are_asked_on_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    said = iter(["48", "6", "mine", "embedded:tiny", "yes"])

    def answer(question: str) -> str:
        asked.append(question)
        return next(said)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["init", "d.jsonl", "q.jsonl"]) == 0
    assert len(asked) == 5 and "[128]" in asked[0]
    chosen = load_settings(Path("my-run.yaml"))
    assert (chosen.name, chosen.model.max_length, chosen.ppo.max_response_tokens) == ("mine", 48, 6)
    assert chosen.labeling.source == "people" and chosen.sampling.responses_per_prompt == 4


@pytest.mark.parametrize(
    "name", ["a'b", "a\nb", "a # b", "\u202eb", "[x]", "a\tb", "--x", "a\x1bb", 'a"b\\\\c', "🌳 é"]
)
def test_a_file_is_found_whatever_it_is_called(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / f"{name}.jsonl"
    (folder / "d.jsonl").rename(file)
    assert main(["init", f"./{file.name}", "--to", "odd name.yaml", "--yes"]) == 0
    (found,) = load_settings(folder / "odd name.yaml").data.demonstrations
    assert Path(found.path) == file
    said = capsys.readouterr().out
    assert said.endswith("next    triphase check 'odd name.yaml'\n")
    assert all(map(str.isprintable, said.expandtabs().split("\n")))
    assert main(["init", f"./{file.name}", "--to", f"./{name}.yaml", "--yes"]) == 0


def test_an_end_of_the_input_is_no_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(question: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["init", "d.jsonl"]) == 2
    assert "the input ended; answer, or use --yes" in capsys.readouterr().err
    assert not (folder / "my-run.yaml").exists()


def test_columns_of_other_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "odd.csv").write_text("prompts,completions\n" + "".join(f"{a} {b},sun\n" for a in WORDS for b in WORDS))
    assert main(["init", "odd.csv", *TINY, "--yes"]) == 2
    assert "--columns prompt=prompts,completion=completions" in capsys.readouterr().err
    assert not (folder / "my-run.yaml").exists()
    assert main(["init", "odd.csv", *TINY, "--yes", "--columns", "prompt=prompts,completion=completions"]) == 0
    assert load_settings(Path("my-run.yaml")).data.demonstrations[0].columns == {
        "prompt": "prompts", "completion": "completions",
    }  # fmt: skip
    assert main(["check", "my-run.yaml"]) == 0


def test_rated_answers_are_preferences_unless_each_prompt_has_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{a} {b},{c},{stars}\n" for a in WORDS for b in WORDS for c, stars in (("sun", 5), ("mud", 1))]
    (folder / "r.csv").write_text("prompt,response,rating\n" + "".join(rows))
    assert main(["init", "r.csv", *TINY, "--yes"]) == 0
    assert "r.csv: preferences, read as an answer and its rating per row (HelpSteer)" in capsys.readouterr().out
    assert main(["check", "my-run.yaml"]) == 0
    (folder / "r.csv").write_text("prompt,response,rating\n" + "".join(rows[::2]))
    told = said(["init", "r.csv", *TINY, "--yes", "--force"], capsys)
    assert "r.csv: demonstrations" in told and "not read: rating (36 records)" in told
    (folder / "r.csv").write_text("prompt,response,rating\n" + "".join([*rows[::2], *rows[1::2]]))
    assert main(["init", "r.csv", *TINY, "--yes", "--force"]) == 2
    assert "consecutive rows (sort the file by prompt), or set data.on_bad_record: drop" in capsys.readouterr().err
    (folder / "s.csv").write_text("ask,reply,stars\n" + "".join(rows))
    assert main(["init", "s.csv", *TINY, "--yes", "--force"]) == 2
    assert "map them: --columns prompt=ask,completion=reply" in capsys.readouterr().err
    (folder / "reviews.jsonl").write_text('{"text": "a fine film", "label": 1}\n')
    assert main(["init", "reviews.jsonl", "--force"]) == 2
    assert "map them: --columns prompt=text\n" in capsys.readouterr().err  # not labeler=label, nor a number as text


def test_columns_that_differ_by_case_alone_are_not_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pairs.jsonl").write_text('{"prompt": "a", "Chosen": "b", "Rejected": "c", "ID": 7}\n' * 2)
    assert main(["init", "pairs.jsonl", "--yes"]) == 2
    said = capsys.readouterr().err
    assert "pairs.jsonl: Chosen, Rejected: not read by this name" in said
    assert "--columns chosen=Chosen,rejected=Rejected, or set the role, for example prompts:pairs.jsonl" in said
    assert main(["init", "pairs.jsonl", "--columns", "chosen=Chosen,rejected=Rejected", "--yes"]) == 0
    assert "pairs.jsonl: preferences" in capsys.readouterr().out
    assert main(["init", "prompts:pairs.jsonl", "--people", "--yes", "--force"]) == 0
    # What is not needed is passed over, and named, as any other column.
    (folder / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "Answer": "d"}\n' * 2)
    assert main(["init", "pairs.jsonl", "--yes", "--force"]) == 0
    told = capsys.readouterr().out
    assert "pairs.jsonl: preferences" in told and "not read: Answer (2 records)" in told


def test_columns_go_to_the_files_that_have_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{a} {b},sun song,mud rust\n" for a in WORDS for b in WORDS)
    (folder / "odd.csv").write_text("question,better,worse\n" + rows)
    assert main(["init", "d.jsonl", "odd.csv", *TINY, "--yes", "--to", "first.yaml"]) == 0
    told = capsys.readouterr().out  # a file of comparisons would pass for one of questions in silence
    assert "columns that are not read: better (36 records), worse (36 records); --columns renames a column" in told
    columns = "prompt=question,chosen=better,rejected=worse"
    assert main(["init", "d.jsonl", "odd.csv", *TINY, "--yes", "--columns", columns]) == 0
    data = load_settings(Path("my-run.yaml")).data
    assert [source.columns for source in data.demonstrations] == [{}]
    assert data.preferences[0].columns == {"prompt": "question", "chosen": "better", "rejected": "worse"}
    assert main(["check", "my-run.yaml"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give at least one data file"),
        (["gone.jsonl"], "gone.jsonl: there is no such file"),
        (["d.jsonl", "--max-length", "0"], "--max-length 0: must be above 0"),
        (["d.jsonl", "--max-length", "8", "--response-tokens", "8"], "leaves no room for a prompt"),
        (["d.jsonl", "--name", "a b"], "--name a b: use only letters, digits"),
        (
            ["d.jsonl", "--model", "embedded:smolm2"],
            "there is no embedded model 'embedded:smolm2'; write embedded:smollm2",
        ),
        ([""], "give at least one data file"),
        (["d.jsonl", "--columns", "prompt"], "--columns prompt: write ours=yours"),
        (["d.jsonl", "--columns", "prompt=nosuch"], "--columns prompt=nosuch: no record of d.jsonl has that column"),
        (
            ["d.jsonl", "--columns", "nosuch=prompt"],
            "--columns nosuch=prompt: the names on the left must be among prompt",
        ),
        (["d.jsonl", "q.jsonl", "--no-people"], "without people and preferences nothing rewards the responses"),
        (["d.jsonl", "--people"], "no file is one of prompts; add one: prompts:d.jsonl"),
        (["preferences:d.jsonl"], "d.jsonl:1: missing column: chosen"),
    ],
)
def test_mistakes_are_one_line(words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", *words, "--yes"]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (folder / "my-run.yaml").exists()


def test_a_configuration_that_is_there_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my-run.yaml").write_text("mine")
    assert main(["init", "d.jsonl", "--yes"]) == 2
    assert "my-run.yaml: already exists; give another file with --to, or use --force" in capsys.readouterr().err
    assert (folder / "my-run.yaml").read_text() == "mine"
    assert main(["init", "d.jsonl", "--yes", "--force"]) == 0


# settings


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_a_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    whole = said(["settings", "ppo.kl_coefficient"], capsys)
    assert "default: 0.05" in whole and "--ppo.kl-coefficient VALUE" in whole
    assert said(["settings", "kl_coefficient"], capsys) == whole
    assert said(["settings", "ppo.kl-coefficient"], capsys) == whole
    section = said(["settings", "ppo"], capsys)
    assert "ppo.kl_coefficient" in section and "ppo.scorer.kind" in section and "sft." not in section
    assert "data.demonstrations[].columns" in said(["settings", "columns"], capsys)
    every: list[dict[str, Any]] = json.loads(said(["settings", "--json"], capsys))
    assert {"name", "meaning", "allowed", "default"} == every[0].keys() and len(every) > 100
    for written, name in {
        "data.prompts.0.path": "data.prompts[].path", "data.preferences[1].columns": "data.preferences[].columns",
        "variants.no-kl.kl_coefficient": "ppo.kl_coefficient", "labelling.source": "labeling.source",
        "arms": "variants", "ppo.score_limit": "ppo.score_clip",
    }.items():  # fmt: skip
        assert said(["settings", written], capsys).splitlines()[0] == name
    assert "data.prompts[].split" in said(["settings", "data.prompts[]"], capsys)
    assert "triphase settings 'data.prompts[]'" in said(["settings", "data.prompts"], capsys)
    assert "a list of wandb | trackio | mlflow\n" in said(["settings", "trackers"], capsys)
    part = said(["settings", "kl"], capsys)  # the example of the help
    assert "ppo.kl_coefficient" in part and "ppo.kl_budget" in part and "sft." not in part
    assert main(["settings", "kl_coeficient"]) == 2
    assert "unknown setting; did you mean ppo.kl_coefficient" in capsys.readouterr().err


# doctor


def test_the_machine_is_described(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(said(["doctor", "--json"], capsys))
    assert found["device"] in ("cpu", "cuda") and found["packages"]["torch"]
    assert all(rate > 0 for rates in found["gflops"].values() for rate in rates.values())
    lines = said(["doctor"], capsys).splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("absent")][:5] == [
        "triphase", "packages", "device", "memory", "bfloat16",
    ]  # fmt: skip
    monkeypatch.setattr("triphase.cli.deferred.abilities", dict)
    assert "pip install 'triphase[train]'" in said(["doctor"], capsys)


def test_what_cannot_be_used_is_said_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mixed").mkdir()
    (folder / "mixed/a.csv").write_text(",prompt,completion\n0,sun,song\n")
    (folder / "mixed/b.csv").write_text("prompt,chosen,rejected\nsun,song,mud\n")
    told = said(["init", "mixed", *TINY, "--yes"], capsys)
    assert "(1 record looked at)" in told and "columns that are not read: one without a name (1 record)" in told
    assert "1 cannot be used (data.on_bad_record: drop leaves such out): mixed/b.csv:2" in told


def test_a_split_and_a_pattern_are_those_of_the_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = datasets.Dataset.from_list(DEMONSTRATIONS)
    datasets.DatasetDict({"sft": rows, "test": rows}).save_to_disk("saved")
    assert main(["init", "saved", *TINY, "--yes"]) == 2 and "has no split 'train'; it has" in capsys.readouterr().err
    assert main(["init", "saved", "q*.jsonl", "--split", "sft", *TINY, "--yes", "--to", "sub/my.yaml"]) == 0
    chosen = load_settings(Path("sub/my.yaml")).data
    assert (chosen.demonstrations[0].split, chosen.prompts[0].split) == ("sft", "train")
    assert main(["check", "sub/my.yaml"]) == 0, capsys.readouterr().err


def test_a_table_without_a_header_is_recognized(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.csv").write_text("What is a tree?,A plant.\nWhat is a stone?,A rock.\n")
    assert main(["init", "a.csv", *TINY, "--yes"]) == 2
    told = capsys.readouterr().err
    assert "--columns prompt=What is a tree?,completion=A plant.;" in told  # in the order of the file
    assert "is the first line a record? Then write one above it that names the columns" in told
