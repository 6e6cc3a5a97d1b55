"""Cleanup of a finished phase: nothing is stored twice, and older checkpoints keep only their weights.

The last checkpoint stays complete, since `triphase extend` continues from it. Its weights are those of ``final``: the
file there gets a second name (a hard link) in the checkpoint, if the file system supports it. Older weights are stored
as their difference from that file, which gets a name in their checkpoints too, and the moments are compressed: all of
it without loss. Each checkpoint is changed file by file, its manifest last, so that it is intact whenever the process
ends; the same call continues.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from triphase.records.files import aside_of, disk_errors, fingerprint, remove_directory, write_atomically
from triphase.training.checkpoint import (
    PARAMETER,
    REST,
    SETTLED,
    SHARED,
    TENSORS,
    UNTRAINED,
    WEIGHTS,
    best_of,
    is_weights_alone,
    shared_of,
    tensors_of,
)
from triphase.training.checkpoint_places import VALUES, kept_steps, place_of, whole_steps
from triphase.training.sealed import MANIFEST, find_damage, read_manifest
from triphase.training.weight_differences import packed

_WORTH_A_LINK = 1 << 14
_MOST_PACKED = 1 << 28
"""Bytes of a checkpoint from which compressing takes longer than it is worth: 30 MB take a second."""
_ALONE = "alone"
_log = logging.getLogger(__name__)


def settle(parent: Path, final: Path, *, keep: int, keep_best: int) -> list[int]:
    """Keep of a finished phase's checkpoints the ``keep`` newest, the best, and those that a message names.

    Returns the steps of the removed ones.

    Raises:
        RunError: the disk is full or cannot be written; every checkpoint stays intact.
    """
    steps = kept_steps(parent)
    whole = sorted(whole_steps(parent))
    if not whole or whole[-1] != steps[-1] or find_damage(final) is not None:
        return []  # what is damaged may have to be restored from the rest
    newest = place_of(parent, whole[-1])
    values = json.loads((newest / VALUES).read_text(encoding="utf-8"))
    scores = {int(step): score for step, score in values.get("scores", {}).items()}
    stay = {*whole[-keep:], *best_of(scores, whole)[:keep_best], *values["values"].get("named", [])}
    with disk_errors(parent):
        _share_weights(newest, final)
        for step in whole[:-1]:
            if step in stay:
                _keep_weights(place_of(parent, step), newest)
            else:
                remove_directory(place_of(parent, step))
    return [step for step in whole if step not in stay]


def share_files(directory: Path, other: Path) -> None:
    """Hard-link files of a sealed directory that ``other`` has too, byte for byte."""
    if directory.resolve() == other.resolve() or find_damage(directory) or find_damage(other):
        return
    sums, known = (read_manifest(each)["sha256"] for each in (directory, other))
    for name, value in sums.items():
        path, twin = directory / name, other / name
        if known.get(name) == value and path.stat().st_size >= _WORTH_A_LINK and not path.samefile(twin):
            with disk_errors(directory):
                aside = aside_of(path)
                if _linked(twin, aside):
                    os.replace(aside, path)


def _keep_weights(path: Path, newest: Path) -> None:
    """Leave only the weights of a checkpoint, as their difference from the file that ``newest`` shares, if it does."""
    if not is_weights_alone(path):
        tensors = {name: value for name, value in tensors_of(path).items() if name.startswith((PARAMETER, UNTRAINED))}
        places = _sealed_places(path)
        if places:  # it was the last one before an extension: its weights have a file already
            tensors = {name: value for name, value in tensors.items() if name not in places}
        else:
            places = {name: place for name, place in _sealed_places(newest).items() if name in tensors}
            if sum(tensors[name].nbytes for name in places) > _MOST_PACKED:
                places = {}
            if places and _linked_files(newest, path, places):
                tensors |= dict(_differences(path, tensors, places))
                write_atomically(path / SHARED, json.dumps(places, indent=1, sort_keys=True))
            else:
                places = {}
        _write(path, WEIGHTS, tensors)
        _seal(path, [WEIGHTS, *([SHARED] if places else []), *_files(places)])
    kept = read_manifest(path)["sha256"]
    _remove(path, [name for name in (TENSORS, REST, *_files(shared_of(path)), SHARED) if name not in kept])


def _differences(
    path: Path, tensors: Mapping[str, Tensor], places: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Tensor]]:
    for file in _files(places):
        found = load((path / file).read_bytes())
        yield from ((name, packed(tensors[name], found[key])) for name, (at, key, *_) in places.items() if at == file)


def _sealed_places(path: Path) -> dict[str, Sequence[str]]:
    """Which tensors of a checkpoint are in which file of a phase's artifact; not what a killed process left."""
    return {**shared_of(path)} if SHARED in read_manifest(path)["sha256"] else {}


def _files(places: Mapping[str, Sequence[str]]) -> list[str]:
    return sorted({place[0] for place in places.values()})


def _linked_files(source: Path, path: Path, places: Mapping[str, Sequence[str]]) -> bool:
    """Link the files of ``places`` into a checkpoint: all of them, or none."""
    _remove(path, _files(places))
    linked = all(_linked(source / file, path / file) for file in _files(places))
    if not linked:
        _remove(path, _files(places))
    return linked


def _share_weights(path: Path, final: Path) -> None:
    """Link the weights of the last checkpoint to the file in ``final``, if that contains the same numbers."""
    if not (path / TENSORS).is_file():
        return
    if REST in read_manifest(path)["sha256"]:  # only this is left to do
        _remove(path, [TENSORS])
        return
    tensors = tensors_of(path)
    shared = _found_in(final, tensors)
    if shared and _linked_files(final, path, shared):
        rest = {name: value for name, value in tensors.items() if name not in shared}
        places: dict[str, Sequence[str]] = {**shared}
        for name, value in _moments(rest, shared, tensors):
            rest[name] = packed(value, torch.zeros_like(value))
            places[name] = (*shared[_weight_of(name)], _ALONE)
        _write(path, REST, rest)
        write_atomically(path / SHARED, json.dumps(places, indent=1, sort_keys=True))
        _seal(path, [REST, SHARED, *_files(shared)])
        _remove(path, [TENSORS])


def _moments(
    rest: Mapping[str, Tensor], shared: Mapping[str, object], tensors: Mapping[str, Tensor]
) -> list[tuple[str, Tensor]]:
    """The moments of shared weights, of the same shape and dtype, if they are worth the time of compressing them."""
    found = [(name, value) for name, value in rest.items() if not name.startswith(UNTRAINED)]
    found = [(name, value) for name, value in found if _weight_of(name) in shared]
    alike = [(name, value) for name, value in found if _are_alike(value, tensors[_weight_of(name)])]
    return alike if sum(value.nbytes for _, value in alike) <= _MOST_PACKED else []


def _weight_of(name: str) -> str:
    return f"{PARAMETER}{name.partition('.')[2]}"


def _are_alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _found_in(final: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
    """Which weights are in which file of ``final`` under which name; small files are left out."""
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(name for name in read_manifest(final)["sha256"] if name.endswith(".safetensors")):
        if (final / file).stat().st_size < _WORTH_A_LINK or "/" in file:
            continue
        known = {_sum(value): name for name, value in sorted(load((final / file).read_bytes()).items())}
        here = {
            name: (file, known[key])
            for name, value in tensors.items()
            if name.startswith(PARAMETER) and name not in found and (key := _sum(value)) in known
        }
        if len({name for _, name in here.values()}) == len(known):
            found.update(here)
    return found


def _sum(tensor: Tensor) -> str:
    return hashlib.sha256(save({"": tensor.contiguous()})).hexdigest()


def _write(path: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    write_atomically(path / name, save({name: value.contiguous() for name, value in tensors.items()}))


def _seal(path: Path, files: list[str]) -> None:
    """Rewrite the manifest: the files that now contain the tensors, and the unchanged values."""
    sums = {name: fingerprint(path / name) for name in sorted([*files, VALUES])}
    text = json.dumps({**read_manifest(path), "format": SETTLED, "sha256": sums}, indent=1, sort_keys=True)
    write_atomically(path / MANIFEST, text)


def _remove(path: Path, names: Iterable[str]) -> None:
    for name in names:
        (path / name).unlink(missing_ok=True)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        _log.info("%s and %s remain two files: %s", source, target, error.strerror or error)
        with suppress(OSError):
            target.unlink(missing_ok=True)
        return False
    return True
