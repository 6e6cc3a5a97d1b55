"""Every shape of file is read, or refused by name; what a path refers to is known before it is opened."""

import datetime
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from triphase.errors import DataError
from triphase.records.lines import RecordError
from triphase.records.reading import read_demonstrations
from triphase.settings.data import SourceSettings

ROW = {"prompt": "süß river", "completion": "song"}
ROWS = [ROW, {"prompt": "mud", "completion": "rust"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def read(path: Path) -> list[tuple[str, str]]:
    found = read_demonstrations(SourceSettings(path=path.name), path.parent)
    return [(item.prompt.text, item.response) for item in found]


def why(path: str | Path, here: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_demonstrations(SourceSettings(path=str(path)), here)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


# --- Shapes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("crlf.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("lines.json", LINES.encode()),
        ("list.json", json.dumps(ROWS, indent=2).encode()),
        ("bom.csv", "\ufeffprompt,completion\r\nsüß river,song\r\nmud,rust\r\n".encode()),
        ("blank.csv", "\n\nprompt,completion\n\nsüß river,song\nmud,rust\n\n".encode()),
    ],
)
def test_shapes_that_are_read(here: Path, name: str, content: bytes) -> None:
    (here / name).write_bytes(content)
    assert read(here / name) == [("süß river", "song"), ("mud", "rust")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.parquet", "a.arrow"])
def test_a_pointer_of_git_lfs_is_recognized(name: str, here: Path) -> None:
    (here / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert f"{name}: is only a pointer of Git LFS; run `git lfs pull` in the clone" in why(name, here)


def test_separators_of_lines_inside_a_text_stay(here: Path) -> None:
    (here / "a.jsonl").write_text('{"prompt": "a\u2028b", "completion": "c\x85d"}\n', encoding="utf-8")
    assert read(here / "a.jsonl") == [("a\u2028b", "c\x85d")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", LINES.encode("utf-16"), "is UTF-16 text; save"),
        (
            "a.csv",
            "prompt,completion\na,b\n".encode("utf-16-le"),
            "looks like UTF-16 or UTF-32 text without a byte-order mark",
        ),
        ("a.jsonl", LINES.encode("utf-32-be"), "looks like UTF-16 or UTF-32 text without a byte-order mark"),
        ("a.jsonl", LINES.encode("latin-1"), ":1: not UTF-8 text"),
        ("a.jsonl", LINES.replace("\n", "\r").encode(), "lines end with only a carriage return"),
        ("a.csv", b"prompt,completion\ra,b\rc,d\r", "lines end with only a carriage return"),
        ("a.json", json.dumps({"version": 1, "data": ROWS}, indent=2).encode(), "a list under 'data'; write that list"),
        ("a.json", json.dumps({"version": 1, "rows": ROWS}).encode(), "a list under 'rows'; write that list alone"),
        ("a.json", json.dumps(ROW, indent=2).encode(), "one object over several lines; write [ before it"),
        ("a.json", json.dumps({"prompt": ["a", "b"], "completion": ["c", "d"]}).encode(), "one object of columns"),
        (
            "a.json",
            ("[" + json.dumps(ROW) + ",\n]").encode(),
            ":2: not valid JSON: there is a comma before the closing ]",
        ),
        ("a.jsonl", "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(), "a record spans several lines"),
        ("a.json", "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(), "a record spans several lines"),
        ("a.jsonl", json.dumps(ROWS).encode(), "a JSON list, not JSON lines; rename it to end in .json"),
        ("a.jsonl", json.dumps(ROWS, indent=1).encode(), "a JSON list, not JSON lines; rename it to end in .json"),
        ("a.csv", b"prompt;completion\na;b\n", "the columns are separated by semicolons"),
        ("a.csv", b"prompt\tcompletion\na\tb\n", "the columns are separated by tabs"),
        ("a.csv", b"prompt|completion\na|b\n", "the columns are separated by bars"),
        ("a.csv", b"prompt,completion,completion\na,b,c\n", "the column 'completion' appears twice"),
        ("a.csv", b"prompt, completion\na,b\n", "' completion' has spaces around its name; write 'completion'"),
        ("a.jsonl", b'{"prompt": "a", "prompt": "b", "completion": "c"}\n', ":1: the key 'prompt' appears twice"),
        ("a.jsonl", b'{"messages": [{"role": "user", "role": "x"}]}\n', ":1: the key 'role' appears twice"),
        ("a.json", b'[{"prompt": "a", "completion": "c", "completion": "d"}]', ":1: the key 'completion' appears"),
        ("a.txt", b"a\n", "unknown kind of file; its name must end in .jsonl, .ndjson, .jsonlines, .json"),
        ("a.jsonl", b'{"prompt": "a\tb", "completion": "c"}\n', r"in a string a tab is written \t"),
        ("a.jsonl", LINES.encode() + b'{"prompt": "a", "compl', ":3: not valid JSON: Unterminated string"),
        ("a.jsonl", b'{"prompt": "a", "compl', "was it cut off?"),
    ],
)
def test_a_shape_that_is_not_read_is_named(here: Path, name: str, content: bytes, message: str) -> None:
    (here / name).write_bytes(content)
    assert message in why(f"./{name}", here)


def test_a_refused_record_of_any_kind_of_file_knows_its_line_and_its_text(here: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    good, bad = '{"prompt": "a", "completion": "b"}', '{"prompt": "a", "completion": ""}'
    (here / "a.jsonl").write_text(f"{good}\n{bad}\n{{broken\n")
    (here / "a.json").write_text(f"[\n{good},\n{bad}\n]")
    (here / "a.csv").write_text('prompt,completion\na,b\n"a\nx",""\nc\n')
    table = pyarrow.Table.from_pylist([json.loads(good), json.loads(bad)])
    pytest.importorskip("pyarrow.parquet").write_table(table, here / "a.parquet")
    expected: dict[str, list[tuple[int, str]]] = {
        "a.jsonl": [(2, bad), (3, "{broken")],
        "a.json": [(3, bad)],
        "a.csv": [(3, '"a\nx",""'), (5, "c")],
        "a.parquet": [(2, bad)],
    }
    for name, places in expected.items():
        found: list[Any] = []
        read_demonstrations(SourceSettings(path=name), here, refused=found.append)
        assert all(isinstance(error, RecordError) for error in found)
        assert [(error.number, error.text) for error in found] == places


# --- Paths --------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory, in which a socket's name is short enough."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_what_is_no_regular_file_is_refused_before_it_is_opened(short: Path) -> None:
    os.mkfifo("pipe.jsonl")
    Path("directory.jsonl").mkdir()
    Path("plain").mkdir()
    Path("loop.jsonl").symlink_to("loop.jsonl")
    Path("away.jsonl").symlink_to("gone.jsonl")
    Path("zero.jsonl").symlink_to("/dev/zero")
    Path("through.jsonl").symlink_to("pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jsonl")
        for name, message in (
            ("pipe.jsonl", "is a pipe"),
            ("through.jsonl", "is a pipe"),
            ("directory.jsonl", "is a directory without data files"),
            ("plain", "is a directory without data files"),
            ("./plain", "is a directory without data files"),
            ("loop.jsonl", "is a symbolic link to itself"),
            ("away.jsonl", "is a symbolic link to a file that is not there"),
            ("zero.jsonl", "is a device"),
            ("/dev/null", "is a device"),
            ("socket.jsonl", "is a socket"),
            ("a" * 300 + ".jsonl", "the name is longer than the file system allows"),
            ("~nosuchuser/a.jsonl", "no such user"),
            ("a\0b.jsonl", "contains a NUL character"),
            ("a\ud800.jsonl", "is not a valid file name"),
            ("gone.jsonl", "there is no such file"),
            ("directory.jsonl/a.jsonl", "there is no such file"),
            ("a\nb.jsonl", "there is no such file"),
        ):
            assert message in why(name, short)


def test_a_file_below_a_file_or_without_permission(short: Path) -> None:
    Path("a.jsonl").write_text(LINES)
    assert "a part of this path is a file" in why("a.jsonl/b.jsonl", short)
    if os.geteuid() == 0:
        return  # the superuser may read everything
    Path("a.jsonl").chmod(0)
    assert "cannot be read" in why("a.jsonl", short)


# --- Parquet ------------------------------------------------------------------------------------------------------


def parquet(path: Path, **columns: Any) -> None:
    table = pytest.importorskip("pyarrow").table(columns)
    pytest.importorskip("pyarrow.parquet").write_table(table, path, compression="zstd")


def test_dates_out_of_range_do_no_harm_unless_they_are_read(here: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")

    dates = pyarrow.array([0, 2**40], pyarrow.timestamp("s"))
    days = pyarrow.array([0, 2**30], pyarrow.date32())
    parquet(here / "a.parquet", prompt=["a", "b"], completion=["c", "d"], at=dates, on=days)
    assert read(here / "a.parquet") == [("a", "c"), ("b", "d")]
    parquet(here / "b.parquet", prompt=dates, completion=["c", "d"])
    assert "b.parquet: row 1: prompt must be text or a list of messages, not datetime" in why("b.parquet", here)
    assert datetime.MAXYEAR == 9999


PEAK = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from triphase.errors import DataError
from triphase.records.reading import stream_prompts
from triphase.settings.data import SourceSettings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count, error = 0, ""
try:
    for item in stream_prompts(SourceSettings(path=sys.argv[1]), Path()):
        count += 1
except DataError as found:
    error = str(found)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000, count, error)
"""


def peak(path: Path) -> tuple[float, int, str]:
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    megabytes, count, error = done.stdout.strip().split(" ", 2) if done.stdout.count(" ") > 2 else (
        *done.stdout.split()[:2], "")  # fmt: skip
    return float(megabytes), int(count), error


def test_a_small_parquet_file_stays_small_in_memory(here: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")

    same = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 256, pyarrow.int32()), pyarrow.array(["a" * 2_000_000])
    )
    parquet(here / "many.parquet", prompt=same)
    parquet(here / "one.parquet", prompt=["a" * 200_000_000])
    assert (here / "many.parquet").stat().st_size < 10_000
    megabytes, count, _ = peak(here / "many.parquet")
    assert count == 256 and megabytes < 150
    megabytes, count, error = peak(here / "one.parquet")
    assert count == 0 and megabytes < 50 and "unpacks to" in error


def test_a_list_without_end_is_refused(here: Path) -> None:
    parquet(here / "a.parquet", prompt=[[None] * 3_000_000])
    assert "unpacks to" in why("a.parquet", here)


def test_a_text_that_no_model_reads_is_refused(here: Path) -> None:
    (here / "a.jsonl").write_text(json.dumps({"prompt": "a " * 3_000_000, "completion": "b"}) + "\n")
    assert "a.jsonl:1: prompt has 6,000,000 characters; no model reads more than" in why("a.jsonl", here)
