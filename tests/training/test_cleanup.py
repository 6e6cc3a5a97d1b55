"""A finished phase stores nothing twice: its last checkpoint continues bit for bit; the others keep only weights."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch

from triphase.errors import RunError
from triphase.training import cleanup
from triphase.training.artifacts import write
from triphase.training.checkpoint import load_checkpoint, load_latest, newest_whole, save_checkpoint
from triphase.training.checkpoint_places import kept_steps
from triphase.training.cleanup import settle, share_files
from triphase.training.sealed import find_damage
from triphase.training.weight_differences import packed, unpacked

SIZE = 5000


def tensors(step: int) -> dict[str, torch.Tensor]:
    """Of two adapters and a head: the second is zero like a third, and the head is too small for a link."""
    weights = {"a": torch.full((SIZE,), float(step)), "b": torch.zeros(SIZE), "head": torch.ones(2) * step}
    found = {f"parameter.{name}": value for name, value in weights.items()}
    return found | {f"exp_avg.{name}": value + 0.5 for name, value in weights.items()}


def finished(folder: Path, steps: int = 5, **values: object) -> tuple[Path, Path]:
    """Checkpoints of a phase, and what it left."""
    from safetensors.torch import save

    parent, final = folder / "checkpoints", folder / "final"
    for step in range(1, steps + 1):
        kept = {"position": step, "scores": {"1": 0.2, "2": 0.9}, "values": {}, **values}
        save_checkpoint(parent, step, tensors(step), kept, keep=steps)
    last = tensors(steps)
    policy = {"model.a": last["parameter.a"], "model.b": last["parameter.b"], "model.c": last["parameter.b"].clone()}
    write(final, {"adapter.safetensors": save(policy), "head.safetensors": save({"w": last["parameter.head"]})}, None)
    return parent, final


def bits(found: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in found.items()}


def size(folder: Path) -> int:
    files = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*.safetensors")}
    return sum(files.values())


def test_what_goes_and_what_stays(tmp_path: Path) -> None:
    parent, final = finished(tmp_path, values={"named": [3]})
    before = {step: load_checkpoint(parent, step) for step in kept_steps(parent)}
    assert settle(parent, final, keep=1, keep_best=1) == [1, 4]
    assert kept_steps(parent) == [2, 3, 5]
    assert bits(load_checkpoint(parent, 5).tensors) == bits(before[5].tensors)  # moments and weights
    assert load_latest(parent) is not None and newest_whole(parent) == 5
    for step in (2, 3):
        weights = {name: value for name, value in before[step].tensors.items() if name.startswith("parameter.")}
        assert bits(load_checkpoint(parent, step).tensors) == bits(weights)
        assert load_checkpoint(parent, step).values == before[step].values
    assert (final / "adapter.safetensors").samefile(parent / "000005" / "adapter.safetensors")
    assert all(find_damage(path) is None for path in (final, *parent.iterdir()))
    # Numbers of 4 bytes: the policy (3); moments and differences of earlier weights are here of one number each.
    assert size(tmp_path) == pytest.approx(3 * SIZE * 4, rel=0.1)
    assert (final / "adapter.safetensors").samefile(parent / "000002" / "adapter.safetensors")


def test_earlier_weights_are_stored_as_a_difference_without_loss(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    near, odd = torch.randn(SIZE, generator=draw), torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 0.0])
    for base, other in ((near, near * (1 + 1e-3)), (near.bfloat16(), near.bfloat16() + 1), (odd, odd.flip(0))):
        stored = packed(other, base)
        assert bits({"w": unpacked(stored, base).view(torch.uint8)}) == bits({"w": other.view(torch.uint8)})
    assert packed(near * (1 + 1e-3), near).numel() < 0.85 * 4 * SIZE  # what makes it worth while
    for shape in ((0, 3), ()):
        some = torch.rand(shape, generator=draw)
        assert torch.equal(unpacked(packed(some, some + 1), some + 1), some)
    moment = torch.rand(SIZE, generator=draw) ** 8
    assert torch.equal(unpacked(packed(moment, torch.zeros(SIZE)), torch.zeros(SIZE)), moment)
    with pytest.raises(RunError, match=r"have 20000 bytes, not 40000; remove this checkpoint"):
        unpacked(packed(near, near), torch.cat((near, near)))
    with pytest.raises(RunError, match="cannot be read"):
        unpacked(torch.zeros(5, dtype=torch.uint8), near)


def test_where_links_fail_between_two_checkpoints_the_earlier_keeps_its_weights(tmp_path: Path) -> None:
    parent, final = finished(tmp_path)
    link = os.link

    def fails(source: Path, target: Path) -> None:
        if "000004" in str(target):
            raise OSError(18, "Invalid cross-device link")
        link(source, target)

    with mock.patch("os.link", fails):
        settle(parent, final, keep=2, keep_best=0)
    assert not (parent / "000004" / "adapter.safetensors").exists()
    kept = {name: value for name, value in tensors(4).items() if name.startswith("parameter.")}
    assert bits(load_checkpoint(parent, 4).tensors) == bits(kept)
    names = ["manifest.json", "values.json", "weights.safetensors"]
    assert sorted(path.name for path in (parent / "000004").iterdir()) == names


def test_settled_twice_is_settled_once(tmp_path: Path) -> None:
    parent, final = finished(tmp_path)
    settle(parent, final, keep=2, keep_best=1)
    once = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in parent.rglob("*") if path.is_file()}
    assert settle(parent, final, keep=2, keep_best=1) == []
    assert once == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in parent.rglob("*") if path.is_file()}


def settled_unless_killed(parent: Path, final: Path, operations: int, *, keep_best: int) -> bool:
    """Whether `settle` ended within this number of operations on files; the process is killed before the next."""

    class Killed(BaseException):
        pass

    left = iter(range(operations))

    def limited(whole: Callable[..., object]) -> Callable[..., object]:
        def operation(*given: object, **more: object) -> object:
            if next(left, None) is None:
                raise Killed
            return whole(*given, **more)

        return operation

    names = ("write_atomically", "remove_directory", "_linked", "_remove")
    with mock.patch.multiple(cleanup, **{name: limited(getattr(cleanup, name)) for name in names}):
        try:
            settle(parent, final, keep=2, keep_best=keep_best)
        except Killed:
            return False
    return True


def test_a_process_that_ends_anywhere_leaves_whole_checkpoints_and_the_same_end(tmp_path: Path) -> None:
    parent, final = finished(tmp_path / "calm")
    settle(parent, final, keep=2, keep_best=1)
    calm = {path.relative_to(parent): path.read_bytes() for path in parent.rglob("*") if path.is_file()}

    for ending in range(40):
        folder = tmp_path / f"killed-{ending}"
        parent, final = finished(folder)
        ended = settled_unless_killed(parent, final, ending, keep_best=1)
        steps = kept_steps(parent)
        assert [find_damage(parent / f"{step:06d}") for step in steps] == [None] * len(steps)
        assert bits(load_checkpoint(parent, 5).tensors) == bits(tensors(5)) and newest_whole(parent) == 5
        settle(parent, final, keep=2, keep_best=1)
        assert calm == {path.relative_to(parent): path.read_bytes() for path in parent.rglob("*") if path.is_file()}
        shutil.rmtree(folder)
        if ended:
            break
    assert ended and ending > 5


def test_a_process_that_ends_anywhere_after_an_extension_leaves_whole_checkpoints(tmp_path: Path) -> None:
    def extended(folder: Path) -> tuple[Path, Path]:
        """The checkpoint that was the last shares its weights with what the phase left then."""
        from safetensors.torch import save

        parent, final = finished(folder, steps=2)
        settle(parent, final, keep=2, keep_best=0)
        assert (parent / "000002" / "shared.json").is_file()
        final.rename(folder / "before")
        save_checkpoint(parent, 3, tensors(3), {"position": 3, "scores": {}, "values": {}}, keep=9)
        last = tensors(3)
        write(final, {"adapter.safetensors": save({"a": last["parameter.a"], "b": last["parameter.b"]})}, None)
        return parent, final

    def is_whole(parent: Path) -> bool:
        return all(find_damage(parent / f"{step:06d}") is None for step in kept_steps(parent))

    for ending in range(40):
        parent, final = extended(tmp_path / f"killed-{ending}")
        ended = settled_unless_killed(parent, final, ending, keep_best=0)
        assert is_whole(parent)
        settle(parent, final, keep=2, keep_best=0)
        assert is_whole(parent) and kept_steps(parent) == [2, 3]
        assert bits(load_checkpoint(parent, 3).tensors) == bits(tensors(3)) and newest_whole(parent) == 3
        kept = {name: value for name, value in tensors(2).items() if name.startswith("parameter.")}
        assert bits(load_checkpoint(parent, 2).tensors) == bits(kept)
        if ended:
            break
    assert ended and ending > 5


def test_what_stands_beside_the_trained_weights_stays_with_them(tmp_path: Path) -> None:
    parent, final = finished(tmp_path)
    for step in (4, 5):
        beside = {f"untrained.{name}": torch.full((SIZE,), step + 0.5) for name in ("copy", "a")}  # one as a weight
        save_checkpoint(parent, step, tensors(step) | beside, {"position": step, "scores": {}, "values": {}}, keep=9)
    settle(parent, final, keep=2, keep_best=0)
    for step in (4, 5):
        found = load_checkpoint(parent, step).tensors
        assert all(found[f"untrained.{name}"].eq(step + 0.5).all() for name in ("copy", "a"))


def test_without_links_the_last_stays_as_it_is(tmp_path: Path) -> None:
    parent, final = finished(tmp_path)
    with mock.patch("os.link", side_effect=OSError(1, "Operation not permitted")):
        settle(parent, final, keep=1, keep_best=0)
    assert sorted(path.name for path in (parent / "000005").iterdir()) == [
        "manifest.json",
        "tensors.safetensors",
        "values.json",
    ]
    assert bits(load_checkpoint(parent, 5).tensors) == bits(tensors(5)) and kept_steps(parent) == [5]


def test_weights_that_are_not_those_of_the_end_stay(tmp_path: Path) -> None:
    parent, final = finished(tmp_path)
    other, _ = finished(tmp_path / "other", steps=4)
    settle(other, final, keep=1, keep_best=0)  # `final` is of step 5
    assert (other / "000004" / "tensors.safetensors").is_file()
    assert bits(load_checkpoint(other, 4).tensors) == bits(tensors(4))
    assert kept_steps(parent) == [1, 2, 3, 4, 5]


def test_training_does_not_go_on_from_weights_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parent, final = finished(tmp_path)
    settle(parent, final, keep=2, keep_best=0)
    (parent / "000005" / "rest.safetensors").write_bytes(b"")
    assert newest_whole(parent) is None
    assert "000004 has only weights; training cannot continue from it" in caplog.text
    with pytest.raises(RunError, match="is damaged"):
        load_checkpoint(parent, 5)


def test_a_damaged_end_settles_nothing(tmp_path: Path) -> None:
    parent, final = finished(tmp_path)
    (final / "adapter.safetensors").write_bytes(b"x")
    assert settle(parent, final, keep=1, keep_best=0) == [] and kept_steps(parent) == [1, 2, 3, 4, 5]
    parent, final = finished(tmp_path / "other")
    (parent / "000005" / "values.json").write_bytes(b"x")
    assert settle(parent, final, keep=1, keep_best=0) == [] and kept_steps(parent) == [1, 2, 3, 4, 5]
    assert settle(tmp_path / "absent", final, keep=1, keep_best=0) == []


def test_equal_files_of_two_phases_are_one_on_the_disk(tmp_path: Path) -> None:
    big = b"t" * 20_000
    write(tmp_path / "sft", {"tokenizer.json": big, "a.bin": b"1" * 20_000, "small": b"s"}, None)
    write(tmp_path / "ppo", {"tokenizer.json": big, "a.bin": b"2" * 20_000, "small": b"s"}, None)
    share_files(tmp_path / "ppo", tmp_path / "sft")
    one = [name for name in ("tokenizer.json", "a.bin", "small") if (tmp_path / "ppo" / name).stat().st_nlink > 1]
    assert one == ["tokenizer.json"] and find_damage(tmp_path / "ppo") is None
    share_files(tmp_path / "ppo", tmp_path / "absent")
    share_files(tmp_path / "ppo", tmp_path / "ppo")
    assert (tmp_path / "ppo" / "tokenizer.json").read_bytes() == big
