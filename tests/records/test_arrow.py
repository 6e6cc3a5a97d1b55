"""Arrow files with wrong sizes or offsets are refused in one line; unusual values are harmless."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from triphase.errors import DataError
from triphase.records.reading import read_demonstrations, stream_demonstrations
from triphase.settings.data import SourceSettings

pa = pytest.importorskip("pyarrow")
ipc = pytest.importorskip("pyarrow.ipc")

ROWS = {"prompt": ["say a", "say b"] * 30, "completion": ["aaa", "bbb"] * 30}


def written(path: Path, table: Any, compression: str | None = None, *, stream: bool = False) -> SourceSettings:
    make = ipc.new_stream if stream else ipc.new_file
    with make(path, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as file:
        file.write_table(table, max_chunksize=20)
    return SourceSettings(path=path.name)


def why(source: SourceSettings, here: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_demonstrations(source, here)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_every_form_is_read(tmp_path: Path, compression: str | None, stream: bool) -> None:
    table = pa.table({**ROWS, "at": pa.array([0, 2**50] * 30, pa.timestamp("s", tz="Nowhere/Land"))})
    found = read_demonstrations(written(tmp_path / "d.arrow", table, compression, stream=stream), tmp_path)
    assert [one.response for one in found] == ROWS["completion"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_buffer_that_unpacks_to_far_more_is_not_unpacked(tmp_path: Path, compression: str, stream: bool) -> None:
    table = pa.table({"prompt": ["x" * (80 << 20)], "completion": ["y"]})
    source = written(tmp_path / "d.arrow", table, compression, stream=stream)
    assert (tmp_path / "d.arrow").stat().st_size < 1 << 20
    assert "batch 1 unpacks to 83,8" in why(source, tmp_path)


def test_a_dictionary_that_unpacks_to_far_more_is_not_unpacked(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), pa.array(["x" * (80 << 20)]))
    assert "unpacks to" in why(written(tmp_path / "d.arrow", pa.table({"prompt": texts}), "zstd"), tmp_path)


def test_copies_of_a_long_text_do_not_come_at_once(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * (1 << 20)]))
    table = pa.table({"prompt": texts, "completion": ["y"] * 3000})
    with ipc.new_file(tmp_path / "d.arrow", table.schema) as file:
        file.write_table(table)
    code = (
        "import sys; from pathlib import Path; from triphase.settings.data import SourceSettings;"
        "from triphase.records.reading import stream_demonstrations;"
        "count = sum(1 for _ in stream_demonstrations(SourceSettings(path='d.arrow'), Path(sys.argv[1])));"
        # Not ru_maxrss, which begins with that of the process that starts this one.
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "print(count, int(peak.split()[1]) >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == 3000 and megabytes < 1500


@pytest.mark.parametrize("kind", ["null", "runs"])
def test_rows_that_take_no_bytes_are_refused(tmp_path: Path, kind: str) -> None:
    count = 10**8
    column = pa.nulls(count)
    if kind == "runs":
        column = pa.RunEndEncodedArray.from_arrays(pa.array([count], pa.int32()), pa.array(["x"]))
    batch = pa.record_batch([column], names=["prompt"])
    with ipc.new_file(tmp_path / "d.arrow", batch.schema) as file:
        file.write_batch(batch)
    assert "100,000,000 rows in" in why(SourceSettings(path="d.arrow"), tmp_path)


def test_an_index_of_something_else_is_refused(tmp_path: Path) -> None:
    """The index at the end lists one batch; an end of the stream that was put before it would hide it from a look."""
    source = written(tmp_path / "d.arrow", pa.table({"prompt": ["x"], "completion": ["y"]}))
    content = bytearray((tmp_path / "d.arrow").read_bytes())
    second = content.index(b"\xff\xff\xff\xff", content.index(b"\xff\xff\xff\xff") + 4)
    content[second + 4 : second + 8] = bytes(4)
    (tmp_path / "d.arrow").write_bytes(content)
    assert "its index does not match its content" in why(source, tmp_path)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    batch = pa.record_batch([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    with ipc.new_file(tmp_path / "d.arrow", batch.schema) as file:
        file.write_batch(batch)
    assert "the column 'prompt' appears twice" in why(SourceSettings(path="d.arrow"), tmp_path)


def test_no_damaged_byte_brings_the_process_down(tmp_path: Path) -> None:
    """In a separate process, since a wrong offset would end it."""
    source = written(tmp_path / "whole.arrow", pa.table({**ROWS, "of": [["a", None], []] * 30}))
    done = subprocess.run([sys.executable, __file__, tmp_path, source.path, "400"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read + refused == 400 and read and refused


def fuzz(here: Path, name: str, count: int) -> tuple[int, int]:
    draw, whole, read = random.Random(5), (here / name).read_bytes(), 0
    for _ in range(count):
        content, place = bytearray(whole), draw.randrange(len(whole))
        content[place : place + 4] = draw.choice((b"\xff\xff\xff\x7f", b"\xff", b"\0\0\0\0", draw.randbytes(4)))
        (here / "d.arrow").write_bytes(content)
        try:
            for _ in stream_demonstrations(SourceSettings(path="d.arrow"), here, refused=lambda _: None):
                pass
            read += 1
        except DataError:
            pass
    return read, count - read


def test_a_saved_data_set_with_a_pipe_in_it_is_not_waited_for(tmp_path: Path) -> None:
    import os

    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict(ROWS).save_to_disk(tmp_path / "saved")
    assert len(read_demonstrations(SourceSettings(path="./saved"), tmp_path)) == 60
    (table,) = (tmp_path / "saved").glob("*.arrow")
    table.unlink()
    os.mkfifo(table)
    assert "is a pipe" in why(SourceSettings(path="./saved"), tmp_path)


if __name__ == "__main__":
    print(*fuzz(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
