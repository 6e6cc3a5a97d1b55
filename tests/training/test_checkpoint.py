"""Checkpoints: read as written; damaged ones are passed over; a full disk spoils nothing."""

import errno
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from triphase.errors import RunError
from triphase.training.checkpoint import (
    FORMAT,
    SETTLED,
    find_damage,
    load_checkpoint,
    load_latest,
    save_checkpoint,
    write_directory,
)
from triphase.training.checkpoint_places import kept_steps

TENSORS = {
    "a": torch.tensor([1.0, -0.0, 1e-30, 3.14159]),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "step": torch.tensor(7.0),
    "sliced": torch.arange(12.0).view(3, 4)[:, 1],
    "empty": torch.empty(0, 3),
}
VALUES = {"position": 3, "coefficient": 0.1 + 0.2, "text": "ü", "none": None, "list": [1, 2]}


def save(parent: Path, step: int, *, keep: int = 2, **options: object) -> Path:
    return save_checkpoint(parent, step, TENSORS, {**VALUES, "position": step}, keep=keep, **options)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and bytes_of(first) == bytes_of(second)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else tensor.numpy().tobytes()


def test_what_is_read_is_what_was_written_bit_for_bit(tmp_path: Path) -> None:
    assert save(tmp_path / "c", 3) == tmp_path / "c" / "000003"
    found = load_latest(tmp_path / "c")
    assert found.step == 3
    assert found.values == {**VALUES, "position": 3}
    assert found.tensors.keys() == TENSORS.keys()
    assert all(same_bits(tensor, TENSORS[name]) for name, tensor in found.tensors.items())


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = save(tmp_path / "1", 3), save(tmp_path / "2", 3)
    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in second.iterdir()
    }


def test_nothing_there_is_nothing_found(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "absent") is None
    (tmp_path / "notes").mkdir()
    assert load_latest(tmp_path) is None and kept_steps(tmp_path) == []


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    for step in (20, 40, 60, 100):
        save(tmp_path, step, keep=keep)
    assert kept_steps(tmp_path) == [20, 40, 60, 100][-keep:]


def test_spared_ones_stay_too(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step, keep=2, spare=[2])
    assert kept_steps(tmp_path) == [2, 4, 5]


# Damage


def flip(path: Path) -> None:
    content = bytearray((path / "tensors.safetensors").read_bytes())
    content[-3] ^= 1
    (path / "tensors.safetensors").write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit": (flip, "the checksum of tensors.safetensors differs"),
    "a file cut": (lambda path: (path / "values.json").write_text("{"), "the checksum of values.json differs"),
    "a file missing": (lambda path: (path / "tensors.safetensors").unlink(), "tensors.safetensors is missing"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
    "a manifest cut": (
        lambda path: (path / "manifest.json").write_text((path / "manifest.json").read_text()[:40]),
        "manifest.json cannot be read",
    ),
    "a manifest of zeros": (lambda path: (path / "manifest.json").write_bytes(bytes(60)), "manifest.json cannot be"),
    "a manifest without sums": (lambda path: (path / "manifest.json").write_text("{}"), "manifest.json cannot be read"),
    "a manifest that is a list": (lambda path: (path / "manifest.json").write_text("[]"), "manifest.json cannot be"),
    "a manifest of no file": (
        lambda path: (path / "manifest.json").write_text('{"sha256": {}}'),
        "manifest.json lists no file",
    ),
    "a manifest of brackets": (
        lambda path: (path / "manifest.json").write_text("[" * 200_000),
        "manifest.json cannot be read",
    ),
    "an empty directory": (lambda path: [child.unlink() for child in path.iterdir()], "manifest.json is missing"),
}


@pytest.mark.parametrize(("damage", "problem"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_newest_is_named_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], problem: str
) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    assert find_damage(newest) is None
    damage(newest)
    assert problem in str(find_damage(newest))
    with caplog.at_level(logging.WARNING):
        assert load_latest(tmp_path).step == 1
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert str(newest) in message and problem in message and "the one before it is used" in message
    with pytest.raises(RunError, match="is damaged"):
        load_checkpoint(tmp_path, 2)


def test_where_all_are_damaged_the_phase_begins_anew(tmp_path: Path) -> None:
    for step in (1, 2):
        flip(save(tmp_path, step))
    assert load_latest(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_later_one_does_not_push_out_those_that_are_written_after_it(tmp_path: Path, keep: int) -> None:
    save(tmp_path, 20, keep=keep + 1)
    flip(save(tmp_path, 40, keep=keep + 1))
    assert load_latest(tmp_path).step == 20
    for step in (25, 30):
        save(tmp_path, step, keep=keep)
        assert load_latest(tmp_path).step == step
    assert kept_steps(tmp_path) == [25, 30][-keep:]
    save(tmp_path, 40, keep=keep)
    assert load_latest(tmp_path).step == 40


def test_what_is_not_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".000002.0123abcd.part").mkdir()
    assert load_latest(tmp_path).step == 1


def test_a_later_format_is_refused_by_name_not_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    manifest = json.loads((newest / "manifest.json").read_text())
    assert manifest["format"] == FORMAT and manifest["step"] == 2
    (newest / "manifest.json").write_text(json.dumps({**manifest, "format": SETTLED + 1}))
    with pytest.raises(RunError, match=rf"000002 was written in format {SETTLED + 1}.*with the version of triphase"):
        load_latest(tmp_path)
    (tmp_path / "config.yaml").write_text("settings: {name: x}\nversions: {triphase: 9.8.7}\n")
    with pytest.raises(RunError, match=r"continue with triphase 9\.8\.7, which started the run"):
        load_latest(tmp_path)


# Directories in general


def test_files_in_directories_are_sealed_too(tmp_path: Path) -> None:
    write_directory(tmp_path / "d", {"x.txt": b"1", "inner/y.txt": b"2"})
    assert find_damage(tmp_path / "d") is None
    (tmp_path / "d" / "inner" / "y.txt").write_bytes(b"3")
    assert find_damage(tmp_path / "d") == "the checksum of inner/y.txt differs"


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "000001").iterdir()}
    written = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "values.json":
            written(self, content[:5])
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    for step in (1, 2):
        with pytest.raises(RunError, match=r"the disk is full; free some space"):
            save(tmp_path, step)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "000001").iterdir()} == before
    assert load_latest(tmp_path).step == 1
