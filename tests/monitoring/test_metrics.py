"""metrics.jsonl: complete lines, no gap, no double step, and nothing that stops training but a full disk."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from triphase.errors import RunError
from triphase.monitoring import metrics
from triphase.monitoring.metrics import MetricsWriter, read_metrics


def test_each_step_is_a_line_of_json(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "sft", tensorboard=False) as writer:
        writer.write(1, {"sft/loss": 2.5, "sft/tokens": 96})
        writer.write(2, {"sft/loss": 2.25})
    lines = [json.loads(line) for line in (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["sft/loss"]) for line in lines] == [(1, 2.5), (2, 2.25)]
    assert lines[0]["sft/tokens"] == 96 and "sft/tokens" not in lines[1]
    assert 1.7e9 < lines[0]["time"] <= lines[1]["time"]


def test_a_line_is_on_the_disk_before_write_returns(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(1, {"sft/loss": 2.5})
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["sft/loss"] == 2.5
    writer.close()


def test_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        with pytest.raises(ValueError, match=r"'ppo/gold_scor' is not registered; did you mean ppo/gold_score\?"):
            writer.write(1, {"ppo/gold_scor": 1.0})
        assert read_metrics(writer.path) == []


def test_what_is_not_finite_is_absent_and_named(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"ppo/ratio_max": math.inf, "ppo/entropy": math.nan, "ppo/eos_rate": 0.5})
    (row,) = read_metrics(writer.path)
    assert row["nonfinite"] == ["ppo/ratio_max", "ppo/entropy"]
    assert row["ppo/eos_rate"] == 0.5 and "ppo/ratio_max" not in row and "ppo/entropy" not in row


def test_steps_do_not_go_back_or_double(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"sft/loss": 1.0})
        writer.write(2, {"sft/loss": 1.0})
        for step in (1, 2):
            with pytest.raises(ValueError, match="truncate_after"):
                writer.write(step, {"sft/loss": 1.0})
    with MetricsWriter(tmp_path, tensorboard=False) as again, pytest.raises(ValueError, match="truncate_after"):
        again.write(2, {"sft/loss": 1.0})


def test_heldout_figures_may_follow_in_a_second_line_of_the_step(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"sft/loss": 1.0})
        writer.write(1, {"sft/heldout_loss": 1.5})
        with pytest.raises(ValueError, match="sft/heldout_loss"):
            writer.write(1, {"sft/heldout_loss": 1.5})
    (row,) = read_metrics(writer.path)
    assert (row["sft/loss"], row["sft/heldout_loss"]) == (1.0, 1.5)


def test_resumed_run_leaves_no_gap_and_no_double_lines(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        for step in range(1, 8):
            writer.write(step, {"sft/loss": float(step)})
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        assert writer.last_step == 7
        writer.truncate_after(4)
        assert writer.last_step == 4
        for step in range(5, 9):
            writer.write(step, {"sft/loss": step + 100.0})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["sft/loss"] for row in rows] == [1, 2, 3, 4, 105, 106, 107, 108]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 8
    assert list(tmp_path.iterdir()) == [tmp_path / "metrics.jsonl"]


def test_truncate_to_nothing_starts_anew(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(0, {"sft/heldout_loss": 3.0})
        writer.truncate_after(-1)
        assert writer.last_step is None and writer.path.read_bytes() == b""
        writer.write(0, {"sft/heldout_loss": 2.0})
    assert len(read_metrics(writer.path)) == 1


def test_line_cut_by_a_crash_is_dropped_on_opening_and_skipped_in_reading(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "time": 1.0, "sft/loss": 1.0}\n{"step": 2, "ti')
    assert [row["step"] for row in read_metrics(path)] == [1]
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        assert writer.last_step == 1
        writer.write(2, {"sft/loss": 0.5})
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("line", [b"{oops", b"[1]", b'{"time": 1.0}', b'{"step": true}', b"\xff\xfe"])
def test_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "time": 1.0}\n' + line + b"\n")
    with pytest.raises(RunError, match="line 2"):
        read_metrics(path)


def test_no_file_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_full_disk_leaves_whole_lines_and_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"sft/loss": 1.0})
        real = os.write
        monkeypatch.setattr(metrics.os, "write", lambda file, data: real(file, data[:10]))
        with pytest.raises(RunError, match="the disk is full; free some space"):
            writer.write(2, {"sft/loss": 1.0})
        monkeypatch.undo()
        writer.write(2, {"sft/loss": 0.5})
    assert [row["sft/loss"] for row in read_metrics(writer.path)] == [1.0, 0.5]


def _scalars(directory: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars("sft/loss")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_same_figures_also_after_a_resume(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 5):
            writer.write(step, {"sft/loss": float(step), "sft/gradient_norm": math.nan})
    with MetricsWriter(tmp_path) as writer:
        writer.truncate_after(2)
        writer.write(3, {"sft/loss": 30.0})
    assert _scalars(tmp_path) == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_failing_tensorboard_warns_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with caplog.at_level(logging.WARNING), MetricsWriter(tmp_path) as writer:
        for step in range(1, 4):
            writer.write(step, {"sft/loss": 1.0})
    assert len(caplog.records) == 1 and "metrics.jsonl is still written" in caplog.text
    assert len(read_metrics(writer.path)) == 3


def test_monitoring_never_imports_torch_or_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import triphase.monitoring.alarms, triphase.monitoring.progress\n"
        "from triphase.monitoring.metrics import MetricsWriter\n"
        f"writer = MetricsWriter(Path({str(tmp_path)!r})); writer.write(1, {{'sft/loss': 1.0}}); writer.close()\n"
        "found = {'torch', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=500)
    assert list(tmp_path.glob("events.out.tfevents.*"))
