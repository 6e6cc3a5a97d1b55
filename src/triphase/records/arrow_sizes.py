"""The unpacked sizes of the batches of an Arrow file, read from their headers before any of them is unpacked.

A compressed buffer begins with its unpacked length, and a batch states its number of rows; neither costs the writer
anything, so a file of a few hundred bytes can request all memory. The headers are FlatBuffers (Message.fbs and
Schema.fbs of Arrow), of which four fields are needed.
"""

import struct
from typing import Any

from triphase.errors import DataError
from triphase.records.arrow_batches import MOST_BYTES, MOST_RATIO

_HEADER, _DICTIONARY_DATA = 2, 1
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3
_MOST_ROWS = 1 << 20
"""Of a batch with fewer bytes than an eighth of a bit for each of them."""
_ROWS_OF_A_BYTE = 64


def require_bounded(ipc: Any, file: Any, name: str) -> int:
    """The number of batches of rows, none of which unpacks to far more than the file contains.

    ``file`` is positioned at the start of its messages.

    Raises:
        DataError: one does, or a header is invalid.
    """
    reader, number, count = ipc.MessageReader.open_stream(file), 0, 0
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return count
        if message.type not in ("record batch", "dictionary"):
            continue
        number += 1
        count += message.type == "record batch"
        try:
            rows, unpacked = _claims(memoryview(message.metadata), message.body, message.type == "dictionary")
        except (struct.error, IndexError, OverflowError):
            raise DataError(f"{name}: batch {number}: damaged Arrow file (its header cannot be read)") from None
        packed = message.body.size
        if rows > max(_MOST_ROWS, _ROWS_OF_A_BYTE * packed):
            raise DataError(
                f"{name}: {rows:,} rows in {packed:,} bytes; this is not plausible for a data "
                f"set: write its rows as JSON lines"
            )
        if unpacked > max(MOST_BYTES, MOST_RATIO * packed):
            raise DataError(
                f"{name}: batch {number} unpacks to {unpacked:,} bytes from {packed:,}; this is "
                f"not plausible for a data set: write its rows as JSON lines"
            )


def _claims(metadata: memoryview, body: Any, is_dictionary: bool) -> tuple[int, int]:
    """Rows of a batch, and its unpacked bytes; those of its body if it is not compressed."""
    table = _table(metadata, struct.unpack_from("<I", metadata)[0], _HEADER)
    if is_dictionary:
        table = _table(metadata, table, _DICTIONARY_DATA)
    length, buffers = _field(metadata, table, _LENGTH), _field(metadata, table, _BUFFERS)
    rows = 0 if length is None else struct.unpack_from("<q", metadata, length)[0]
    if buffers is None or _field(metadata, table, _COMPRESSION) is None:
        return rows, int(body.size)
    vector, content = _target(metadata, buffers), memoryview(body)
    unpacked = 0
    for index in range(struct.unpack_from("<I", metadata, vector)[0]):
        start, size = struct.unpack_from("<qq", metadata, vector + 4 + 16 * index)
        if size >= 8:
            claimed = struct.unpack_from("<q", content, start)[0]
            unpacked += size if claimed < 0 else claimed
    return rows, unpacked


def _table(metadata: memoryview, table: int, field: int) -> int:
    """The table that a field of another one points to."""
    place = _field(metadata, table, field)
    if place is None:
        raise IndexError("there is no such field")
    return _target(metadata, place)


def _target(metadata: memoryview, place: int) -> int:
    return int(place + struct.unpack_from("<I", metadata, place)[0])


def _field(metadata: memoryview, table: int, field: int) -> int | None:
    """The position of a table's field; None if it is omitted, and has its default."""
    fields = table - struct.unpack_from("<i", metadata, table)[0]
    size = struct.unpack_from("<H", metadata, fields)[0]
    if 6 + 2 * field > size:
        return None
    offset = struct.unpack_from("<H", metadata, fields + 4 + 2 * field)[0]
    return table + offset if offset else None
