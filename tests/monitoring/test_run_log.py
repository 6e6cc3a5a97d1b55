"""The log of a run holds whole lines, whatever the disk takes of one."""

import json
import logging
import os
from pathlib import Path

import pytest

from triphase.datacheck.run_data import RunData
from triphase.monitoring.log import NOTE, run_log, shown_log
from triphase.settings.schema import RunSettings


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


def test_how_records_are_read_is_no_warning(tmp_path: Path) -> None:
    rows = [{"instruction": f"Name tree {n}.", "output": "An elm.", "note": "x"} for n in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"demonstrations": [{"path": str(tmp_path / "a.jsonl")}]}
    said: list[str] = []
    with run_log(tmp_path, said.append):
        RunData(RunSettings.model_validate({"name": "x", "model": {"name": "m"}, "data": data})).demonstrations()
    assert [line.partition(": ")[0] for line in said] == ["note", "warning"]
    assert said[0].endswith("read as Alpaca (instruction, input, output)") and "not read: note (3 rec" in said[1]


def test_what_no_run_logs_has_its_level_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, said = logging.getLogger("triphase.somewhere"), list[str]()
    with shown_log():
        log.warning("read as %s", "Alpaca", extra=NOTE)
        with run_log(tmp_path, said.append):
            log.warning("in a run")
        log.warning("after it")
    assert said == ["warning: in a run"]
    assert capsys.readouterr().err == "note: read as Alpaca\nwarning: after it\n"
    assert not logging.getLogger("triphase").handlers


def test_a_program_with_its_own_handler_hears_what_a_run_logs(tmp_path: Path) -> None:
    logger, heard = logging.getLogger("triphase"), list[str]()
    own = logging.Handler()
    own.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(own)
    try:
        with run_log(tmp_path, lambda line: None) as log:
            log.info("in a run")
    finally:
        logger.removeHandler(own)
    assert heard == ["in a run"]
