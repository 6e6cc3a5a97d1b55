"""The log of a run holds whole lines, whatever the disk takes of one."""

import json
import logging
import os
from pathlib import Path

import pytest

from triphase.monitoring.log import run_log


def test_a_line_that_the_disk_takes_in_part_is_taken_back_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    write, is_full = os.write, [False]

    def short(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:20] if is_full[0] else data)

    monkeypatch.setattr(os, "write", short)
    with run_log(tmp_path, said.append) as log:
        log.info("first")
        is_full[0] = True
        log.info("second")
        log.info("third")
        is_full[0] = False
        log.info("fourth")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["message"] for line in lines] == ["first", "fourth"]
    assert len(said) == 1 and "log.jsonl cannot be written (No space left on device)" in said[0]
    assert not logging.getLogger("triphase").handlers
