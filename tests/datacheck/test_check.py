"""What `triphase check` counts, what it sets aside, and that no mutated file gets through uncounted."""

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.settings_text import settings_from_text

from triphase.cli.main import main
from triphase.datacheck import survey_parts
from triphase.datacheck import tokenizer_checks as hazards
from triphase.datacheck.conclusions import EXACT_BYTES
from triphase.datacheck.lengths import SourceLengths
from triphase.datacheck.model_names import place_of
from triphase.datacheck.run_data import RunData
from triphase.datacheck.survey import DataSurvey, survey_data
from triphase.records.types import Message
from triphase.settings.loading import load_settings

ROWS = [{"prompt": f"Say {word}.", "chosen": f"{word} it is", "rejected": f"no {word}"} for word in "abcdefghijkl"]


def written(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def surveyed(path: Path, kind: str = "preferences", **model: object) -> DataSurvey:
    options = json.dumps({"name": "embedded:tiny", **model})
    text = f"name: x\nmodel: {options}\nlabeling: {{source: none}}\ndata: {{{kind}: [{{path: {path}}}]}}"
    return survey_data(settings_from_text(text))


def test_repetitions_contradictions_and_near_empty_answers_are_counted(tmp_path: Path) -> None:
    extra = [ROWS[0], {**ROWS[1], "chosen": ROWS[1]["rejected"], "rejected": ROWS[1]["chosen"]}]
    extra += [{"prompt": "Short.", "chosen": "a", "rejected": "something"}]
    found = surveyed(written(tmp_path / "a.jsonl", ROWS + extra))
    source = found.sources[0]
    assert (source.records, source.repeated, source.near_empty, source.refused) == (15, 1, 1, 0)
    assert found.contradicted == 2


def test_responses_before_the_last_are_counted_since_they_are_not_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": role, "content": word} for word in ("oak", "elm") for role in ("user", "assistant")]
    rows = [{"messages": turns}, {"messages": turns[:2]}, {"messages": [*turns[:3], turns[1]]}]
    written(tmp_path / "d.jsonl", rows)
    config = tmp_path / "c.yaml"
    config.write_text(
        "name: x\nmodel: {name: 'embedded:tiny', max_length: 64}\nadapters: {layers: all}\nlabeling: {source: none}\n"
        "data: {demonstrations: [{path: d.jsonl}]}\n"
    )
    assert main(["check", str(config)]) == 0
    assert "d.jsonl: 2 demonstrations have several responses; the last is learned" in _flat(capsys.readouterr().out)
    assert main(["check", str(config), "--json"]) == 0
    [source] = json.loads(capsys.readouterr().out)["sources"]
    assert source["with_earlier_responses"] == 2


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_leaks_between_training_and_held_out_are_counted(tmp_path: Path) -> None:
    prompts = written(tmp_path / "p.jsonl", [{"prompt": "Say a.", "split": "heldout"}, {"prompt": "Say z."}])
    shown = written(tmp_path / "d.jsonl", [{"prompt": "Say a.", "completion": "aa aa", "split": "train"}] * 2)
    data = f"{{demonstrations: [{{path: {shown}}}], prompts: [{{path: {prompts}}}]}}"
    found = survey_data(settings_from_text(f"name: x\nmodel: {{name: m}}\ndata: {data}\nlabeling: {{source: none}}"))
    assert found.leaked == 2


def test_without_a_tokenizer_nobody_knows_what_is_too_long(tmp_path: Path) -> None:
    rows = [{"prompt": "Say.", "chosen": "word " * count, "rejected": "no"} for count in (3, 500, 5)]
    assert surveyed(written(tmp_path / "a.jsonl", rows), max_length=100).sources[0].too_long is None


def test_a_comparison_is_as_long_as_its_prompt_and_its_longer_answer() -> None:
    lengths = SourceLengths(lambda texts: [len(text) for text in texts])
    lengths.add((Message("user", "abc"), Message("assistant", "de")), ("x" * 80, "y"))
    lengths.finish()
    assert lengths.sampled == [3 + 1 + 2 + 1 + 80]


def test_bad_records_stop_the_check_and_can_be_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.jsonl", [*ROWS, {"prompt": "x", "chosen": "y"}, {**ROWS[0], "rejected": ""}])
    with path.open("ab") as file:
        file.write(b'{"prompt": \xff\n')
    config = tmp_path / "c.yaml"
    written(tmp_path / "d.jsonl", [{"prompt": f"Say {word}.", "completion": word} for word in "abcdefgh"])
    config.write_text(
        "name: c\nmodel: {name: 'embedded:tiny'}\nlabeling: {source: none}\n"
        "adapters: {layers: all}\nppo: {batch_size: 4, minibatch_size: 4}\n"
        "data: {demonstrations: [{path: d.jsonl}], preferences: [{path: a.jsonl}]}"
    )
    assert main(["check", str(config)]) == 2
    assert "a.jsonl:13" in capsys.readouterr().err
    aside = tmp_path / "aside.jsonl"
    assert main(["check", str(config), "--quarantine", str(aside)]) == 0
    rows = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [row["line"] for row in rows] == [13, 14, 15]
    assert json.loads(rows[0]["text"]) == {"prompt": "x", "chosen": "y"}
    assert rows[2]["text"] == '{"prompt": \\xff'
    said = capsys.readouterr().out
    assert "3 records are moved to" in said
    assert said.rstrip().endswith("--data.on-bad-record drop")  # the next step is one that a run takes


@pytest.mark.parametrize("width", ["200", "60"])
def test_a_strangers_names_do_not_act_on_the_terminal(
    width: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    odd = {"\x1b]0;title\x07 \u202e[red]": "x"}
    written(tmp_path / "p.jsonl", [*({**row, **odd} for row in ROWS), *ROWS[:1], {"\x1b[2J": 1}])
    for words in (["--quarantine", str(tmp_path / "q")], []):
        main(["check", *configured(tmp_path, "p.jsonl"), *words])
        said = capsys.readouterr()
        assert "U+001B" in said.out and not {"\x1b", "\x07", "\u202e"} & set(said.out + said.err)


def test_records_with_the_id_of_another_prompt_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = [{"id": "1", "prompt": "Say x."}, {"id": "2", "prompt": "Say y.", "split": "heldout"}]
    written(tmp_path / "p.jsonl", [*one, {"id": "3", "prompt": "Say v."}])
    written(tmp_path / "q.jsonl", [{**row, "prompt": row["prompt"] + "?"} for row in one] + [{"prompt": "Say z."}])
    both = [{"path": "p.jsonl"}, {"path": "q.jsonl"}]
    preferred = [{**row, "split": "heldout" if number < 3 else "train"} for number, row in enumerate(ROWS)]
    written(tmp_path / "r.jsonl", preferred)
    assert main(["check", *configured(tmp_path, "r.jsonl", prompts=both)]) == 2
    said = capsys.readouterr().err
    assert "q.jsonl:1: the id '1' is already used by another prompt" in said and "(2 records of this file" in said
    assert "`triphase check` lists them" not in said
    assert main(["check", *configured(tmp_path, "r.jsonl", prompts=both, on_bad_record="drop")]) == 0
    said = capsys.readouterr().out
    assert "2 records have the id of another prompt and are left out too; the first: " in said


CSV = 'prompt,chosen,rejected\nSay a.,yes,no\n"Say\nb.",yes,\nSay c.,yes\nSay d.,no,yes\n'
DEMONSTRATIONS = [{"prompt": f"say {word}.", "completion": f"{word} it is"} for word in "abcdefgh"]


def configured(here: Path, path: str, *more: str, **data: object) -> list[str]:
    """The arguments of a command on a small configuration whose preferences stand in ``path``."""
    written(here / "d.jsonl", [*DEMONSTRATIONS])
    given = json.dumps({"demonstrations": [{"path": "d.jsonl"}], "preferences": [{"path": path}], **data})
    (here / "c.yaml").write_text(
        "name: c\nmodel: {name: 'embedded:tiny', dtype: float32}\nlabeling: {source: none}\n"
        f"adapters: {{layers: all}}\nppo: {{batch_size: 4, minibatch_size: 4}}\ndata: {given}\n"
    )
    return [str(here / "c.yaml"), *more]


def as_parquet(path: Path, rows: list[dict[str, str]]) -> None:
    table = pytest.importorskip("pyarrow").Table.from_pylist(rows)
    pytest.importorskip("pyarrow.parquet").write_table(table, path)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_records_are_set_aside_with_line_and_text_from_files_of_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path, rows = Path(f"p.{kind}"), [*ROWS[:8], {**ROWS[8], "rejected": ""}, *ROWS[9:]]
    expected = [(9, json.dumps(rows[8]))]
    if kind == "jsonl":
        written(path, [*rows])
    elif kind == "json":
        path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]")
        expected = [(10, json.dumps(rows[8]))]
    elif kind == "csv":
        path.write_text(CSV + "".join(f"{row['prompt']},{row['chosen']},{row['rejected']}\n" for row in ROWS[4:]))
        expected = [(3, '"Say\nb.",yes,'), (5, "Say c.,yes")]
    else:
        as_parquet(path, rows)
    command = configured(tmp_path, str(path.absolute()) if absolute else path.name, "--quarantine", "q.jsonl")
    assert main(["check", *command]) == 0
    found = [json.loads(line) for line in Path("q.jsonl").read_text().splitlines()]
    assert [(row["line"], row["text"]) for row in found] == expected
    assert all(row["file"].endswith(path.name) and row["reason"].startswith(f"{path}:") for row in found)
    assert f"{len(expected)} records are moved to q.jsonl" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_counts_as_no_record(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS[:2])[:-1] + ",")
    source = surveyed(path).sources[0]
    assert (source.records, source.refused) == (2, 0)
    assert "not valid JSON" in source.failure
    assert surveyed(tmp_path / "gone.jsonl").refused == 0


def test_check_and_run_leave_out_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = [{**ROWS[0], "rejected": ROWS[0]["chosen"]}, {"prompt": "x"}, {**ROWS[1], "chosen": ""}]
    written(tmp_path / "p.jsonl", [*ROWS, *bad])
    command = configured(tmp_path, "p.jsonl")
    for verb in ("check", "run"):
        assert main([verb, *command]) == 2
        assert "p.jsonl:13: chosen and rejected are the same text (3 records" in capsys.readouterr().err
    command = configured(tmp_path, "p.jsonl", on_bad_record="drop")
    assert main(["check", *command]) == 0
    assert "3 records cannot be used and are left out (data.on_bad_record: drop)" in capsys.readouterr().out
    notes: list[str] = []
    data = RunData(load_settings(tmp_path / "c.yaml"), note=notes.append)
    assert len(data.comparisons()) == len(ROWS)
    assert notes == [
        "p.jsonl: 3 records are left out (data.on_bad_record); the first: p.jsonl:13: "
        "chosen and rejected are the same text"
    ]


def test_columns_that_are_not_read_are_told_by_check_and_by_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "p.jsonl", [{**row, "tools": [1], "context": "" if row is ROWS[0] else "x"} for row in ROWS])
    command = configured(tmp_path, "p.jsonl")
    told = "p.jsonl: columns that are not read: tools (12 records), context (11 records)"
    assert main(["check", *command]) == 0
    assert told in capsys.readouterr().out
    notes: list[str] = []
    RunData(load_settings(tmp_path / "c.yaml"), note=notes.append).comparisons()
    assert notes == [told]


@pytest.mark.parametrize("width", [80, 50])
def test_a_narrow_terminal_shows_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    written(tmp_path / "preferences-of-a-long-name.jsonl", [*ROWS])
    assert main(["check", *configured(tmp_path, "preferences-of-a-long-name.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert "preferences: preferences-of-a-long-name.jsonl" in out
    assert "records 12, held out 4, repeated 0, near-empty 0, too long 0, refused 0" in out
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", *configured(tmp_path, "preferences-of-a-long-name.jsonl")]) == 0
    assert "│ preferences-of-a-long-name.jsonl │" in capsys.readouterr().out


def test_a_long_text_is_counted_in_pieces() -> None:
    asked: list[int] = []

    def count(texts: Sequence[str]) -> list[int]:
        asked.extend(map(len, texts))
        return [len(text) for text in texts]

    lengths = SourceLengths(count)
    lengths.add((Message("user", "x" * 1_000_000),), ())
    lengths.add((Message("user", "short"),), ())
    lengths.finish()
    assert lengths.sampled == [1_000_000, 5]
    assert max(asked) <= 1 << 16


def mutated(content: bytes, draw: random.Random) -> bytes:
    """``content`` with one to four mutations: bits, bytes, cuts, swaps, duplications, unusual tokens."""
    odd = (b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"NaN", b"1e999", b"null", b"{" * 300, b"[" * 5000, b'"', b"\\u0000",
           b"\\ud800", b"\r", b"\n", b"\xe2\x80\xa8", b'"prompt": 1, ', b"-", b"9" * 5000)  # fmt: skip
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content) + 1)
        to = min(len(content), at + draw.randint(1, 60))
        match draw.randrange(6):
            case 0 if content:
                index = min(at, len(content) - 1)
                content = content[:index] + bytes([content[index] ^ 1 << draw.randrange(8)]) + content[index + 1 :]
            case 1:
                content = content[:at] + content[to:]
            case 2:
                content = content[:at] + content[at:to] * 2 + content[to:]
            case 3:
                content = content[:at] + draw.choice(odd) + content[at:]
            case 4:
                content = content[:at]
            case _:
                content = content[:at] + draw.randbytes(draw.randint(1, 8)) + content[to:]
    return content


def lines_of(content: bytes) -> int:
    """How many lines hold anything, as any reader of lines counts them."""
    return sum(bool(line.strip()) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


def fuzz(directory: Path, count: int, seed: int) -> dict[str, int]:
    """Survey mutated files; every line of each must be used or refused, unless the whole file is refused."""
    draw, ends = random.Random(seed), {"used": 0, "refused": 0, "unread": 0}
    sound = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    path = directory / "m.jsonl"
    for number in range(count):
        content = mutated(sound, draw)
        path.write_bytes(content)
        source = surveyed(path, draw.choice(("preferences", "prompts"))).sources[0]
        counted = source.records + source.refused
        if not source.failure:
            assert counted == lines_of(content), f"file {number}: {content!r}"
        ends["unread" if source.failure else "refused" if source.refused else "used"] += 1
    return ends


def test_mutated_files_end_in_records_used_or_refused(tmp_path: Path) -> None:
    ends = fuzz(tmp_path, 100, seed=1)
    assert sum(ends.values()) == 100
    assert ends["refused"] > 20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
COLUMNS = st.sampled_from(
    ["prompt", "chosen", "rejected", "messages", "completion", "id", "split", "kind", "margin", "instruction", "output"]
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "x"]), "content": st.text(max_size=4)}
    )
)


WORD = st.text("abc", min_size=1, max_size=3)
SOUND = st.fixed_dictionaries({"prompt": WORD, "completion": WORD, "chosen": WORD, "rejected": WORD})
ROW = SOUND | JSON | st.dictionaries(COLUMNS, JSON | TURNS | st.text(min_size=1, max_size=5), max_size=6)


@given(st.lists(ROW, min_size=1, max_size=8), st.sampled_from(["preferences", "prompts", "demonstrations"]))
def test_whatever_a_line_holds_is_used_or_refused(rows: list[object], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder, "a.jsonl"), rows)
        source = surveyed(path, kind).sources[0]
        # A list on the first line is no JSON lines at all: the file is refused, not its records.
        assert source.records + source.refused == len(rows) or "is a JSON list" in source.failure


@pytest.mark.slow
def test_a_thousand_mutated_files(tmp_path: Path) -> None:
    assert sum(fuzz(tmp_path, 1000, seed=2).values()) == 1000


def counts(survey: DataSurvey) -> tuple[object, ...]:
    source = survey.sources[0]
    lengths = (source.too_long, sorted(source.lengths.sampled))
    return (source.records, source.heldout, source.repeated, source.near_empty, source.refused, source.kinds,
            source.errors, lengths, survey.leaked, survey.contradicted)  # fmt: skip


@pytest.mark.parametrize("ids", ["none", "distinct", "repeated"])
def test_parts_of_a_large_file_are_counted_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: str
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2})
    draw, lines = random.Random(4), []
    for number in range(2500):
        row = {"prompt": f"Say {draw.randrange(900)}.", "chosen": "yes " * draw.randint(0, 3), "rejected": "no"}
        if draw.random() < 0.3:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        if ids != "none":
            row["id"] = str(number % 2400 if ids == "repeated" else number)
        lines.append("{broken\n" if draw.random() < 0.02 else json.dumps(row) + "\n")
    path = tmp_path / "large.jsonl"
    path.write_text("".join(lines))
    whole = surveyed(path)
    parts: list[object] = []
    monkeypatch.setattr("triphase.datacheck.survey_parts.LARGE", 1)
    added = survey_parts._add
    monkeypatch.setattr(survey_parts, "_add", lambda *given: (parts.append(given), added(*given)))
    assert counts(surveyed(path)) == counts(whole)
    assert len(parts) == 3
    assert whole.sources[0].refused > 20 and whole.contradicted > 0 and whole.sources[0].repeated > 0


def test_counting_by_the_small_library_is_counting_by_transformers() -> None:
    from transformers import AutoTokenizer

    settings = settings_from_text("name: x\nmodel: {name: 'embedded:tiny'}\ndata: {}\nlabeling: {source: none}")
    count, texts = hazards.token_count(settings), ["the cat", "", "a b c zzz", "ß\n\n日本"]
    own = AutoTokenizer.from_pretrained(place_of(settings.model.name))
    assert count is not None
    assert count(texts) == [len(own(text, add_special_tokens=False).input_ids) for text in texts]


def test_a_machine_reads_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "a.jsonl", [*ROWS, ROWS[0], {"prompt": "Say."}])
    config = tmp_path / "my.yaml"
    config.write_text(
        "name: x\nmodel: {name: 'embedded:tiny', max_length: 64}\nlabeling: {source: none}\n"
        "data: {preferences: [{path: a.jsonl}]}\n"
    )
    assert main(["check", str(config), "--json"]) == 2
    heard = capsys.readouterr()
    (source,) = json.loads(heard.out)["sources"]
    assert (source["for"], source["records"], source["repeated"], source["refused"]) == ("preferences", 13, 1, 1)
    assert source["median_length"] and "a.jsonl:14" in source["errors"][0]
    assert heard.err.splitlines()[-1].startswith("error: ")
    assert main(["check", str(config), "--json", "--data.on-bad-record", "drop"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"] == [source]


def test_demonstrations_alone_are_not_asked_for_room_for_responses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "a.jsonl", [{"prompt": f"sun road {n}", "completion": "mud"} for n in range(20)])
    config = tmp_path / "my.yaml"
    model = "model: {name: 'embedded:tiny', max_length: 16}"
    config.write_text(f"name: x\n{model}\ndata: {{demonstrations: [{{path: a.jsonl}}]}}\n")
    assert main(["check", str(config)]) == 0
    config.write_text(
        f"name: x\n{model}\ndata: {{demonstrations: [{{path: a.jsonl}}], prompts: [{{path: a.jsonl}}]}}\n"
    )
    assert main(["check", str(config)]) == 2
    assert "leave none for a prompt in model.max_length = 16" in capsys.readouterr().err


WANTED = [{"prompt": f"sun {word}", "want": word} for word in ("sun", "song", "mud", "road", "tree", "rain")]


def scored_by_a_function(folder: Path) -> Path:
    """The settings of PPO on the prompts in p.jsonl, with a reward function that gets their columns."""
    config = folder / "x.yaml"
    config.write_text(
        "name: x\nmodel: {name: embedded:tiny, max_length: 64}\n"
        "data: {heldout_share: 0.5, prompts: [{path: p.jsonl}]}\n"
        "ppo: {max_response_tokens: 8, scorer: {function: 'tests.rewards.functions:everything'}}\n"
    )
    return config


def test_records_without_a_column_that_others_have_are_counted_where_a_scorer_gets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "p.jsonl", [*WANTED, {"prompt": "mud mud"}, {"prompt": "mud sun", "want": None}])
    config = scored_by_a_function(tmp_path)
    said: list[str] = []
    RunData(load_settings(config), note=said.append).prompts()
    wanted = "records without a column (the scorer gets None): want (2 of 8)"
    assert any(line.endswith(wanted) for line in said), said
    main(["check", str(config)])
    assert f"note: {path}: {wanted}" in capsys.readouterr().out


def test_records_that_repeat_a_prompt_with_another_value_of_a_column_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first value stays; one that the first record lacks comes from a later record."""
    again = [{"prompt": "sun sun", "want": "mud"}, {"prompt": "sun song", "want": "song", "more": 1}]
    written(tmp_path / "p.jsonl", [*WANTED, *again])
    config = scored_by_a_function(tmp_path)
    said: list[str] = []
    prompts = RunData(load_settings(config), note=said.append).prompts()
    counted = "p.jsonl: records repeat a prompt with another value of want (1); the scorer gets the first value"
    assert [line.split("/")[-1] for line in said if "repeat a prompt" in line] == [counted]
    assert dict(prompts[0].columns) == {"want": "sun"} and dict(prompts[1].columns) == {"want": "song", "more": 1}
    for limit in (EXACT_BYTES, 0):  # as data that is too large to be encoded in a survey
        monkeypatch.setattr("triphase.datacheck.conclusions.EXACT_BYTES", limit)
        assert main(["check", str(config)]) == 0
        assert capsys.readouterr().out.replace("\n", "").count(counted) == 1
    written(tmp_path / "p.jsonl", [*WANTED, *again, {"prompt": "mud", "want": "\ud800"}])
    assert main(["check", str(config)]) == 2
    assert "p.jsonl:9: want contains half of a surrogate pair" in capsys.readouterr().err
    for limit in (EXACT_BYTES, 0):
        monkeypatch.setattr("triphase.datacheck.conclusions.EXACT_BYTES", limit)
        assert main(["check", str(config), "--data.on-bad-record", "drop"]) == 0
        assert "1 records cannot be used and are left out" in capsys.readouterr().out  # as by `run`


def test_a_column_that_no_scorer_can_get_is_the_error_and_not_that_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pyarrow.Table.from_pylist([{**row, "want": b"\xff"} for row in WANTED])
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    config = scored_by_a_function(tmp_path)
    config.write_text(config.read_text().replace("p.jsonl", "p.parquet"))
    for verb in ("check", "run"):
        assert main([verb, str(config), "--data.on-bad-record", "drop"]) == 2
        said = capsys.readouterr().err
        assert r"p.parquet: row 1: want has a bytes (b'\xff') that cannot be passed to a scoring function" in said
