"""Checks of a model's directory before a weight is read: the configuration, and the headers of the weights.

Headers are a few kilobytes, so a truncated file, a pointer in place of a file, or a missing shard is found at once, by
name, where a library would raise an error of its own or allocate memory for missing weights.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triphase.errors import ModelError, first_line_of

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_LONGEST_HEADER = 100_000_000
_LARGEST_LIST = 100  # upper bound: layers for each tensor in the files
_SIZES = ("hidden_size", "vocab_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
_DEPTH = "num_hidden_layers"
_AGAIN = "download or copy the model again"


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that contains an object.

    Raises:
        ModelError: it cannot be read, or contains something else.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_POINTER):
            raise ModelError(_pointer(path))
        found = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"model.name: {path}: is not valid JSON ({first_line_of(error, 120)}); {_AGAIN}") from None
    if not isinstance(found, dict):
        raise ModelError(f"model.name: {path}: contains a {type(found).__name__}, not a JSON object; {_AGAIN}")
    return found


def check_files(directory: Path, *, weights: bool = True) -> None:
    """Refuse a directory whose configuration or weights cannot be opened; without ``weights`` they are not checked.

    Raises:
        ModelError: names the file, what is wrong with it, and the remedy.
    """
    if not (directory / CONFIG).is_file():
        raise ModelError(f"model.name: {_no_config(directory)}")
    config = read_object(directory / CONFIG)
    _check_kind(directory, config)
    if not weights:
        return
    numbers = [size for path in weight_files(directory) for size in tensor_sizes(path).values()]
    _check_sizes(directory, config, numbers)


def check_classifier_files(directory: Path) -> None:
    """Refuse the directory of a sequence classifier whose configuration or weights cannot be opened.

    Raises:
        ModelError: as in `check_files`.
    """
    if not (directory / CONFIG).is_file():
        raise ModelError(f"model.name: {_no_config(directory)}")
    config = read_object(directory / CONFIG)
    numbers = [size for path in weight_files(directory) for size in tensor_sizes(path).values()]
    _check_sizes(directory, config, numbers)


def tensor_sizes(path: Path) -> dict[str, int]:
    """How many numbers each tensor of a safetensors file has, from its header.

    Raises:
        ModelError: the file is truncated, a pointer, or not such a file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if _POINTER.startswith(start) and start:
                raise ModelError(_pointer(path))
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= _LONGEST_HEADER:
                raise ModelError(f"model.name: {path}: is not a safetensors file; {_AGAIN}")
            header = file.read(length)
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"model.name: {path}: cannot be read ({error.strerror or error}); {_AGAIN}") from None
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        numbers = {name: _product(entry["shape"]) for name, entry in entries.items()}
        whole = int(end) + 8 + length
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
        raise ModelError(f"model.name: {path}: its header is damaged or cut short; {_AGAIN}") from None
    if whole != size:
        raise ModelError(f"model.name: {path}: has {size:,} bytes, but its header says {whole:,}; {_AGAIN}")
    return numbers


def weight_files(directory: Path) -> Iterator[Path]:
    """The safetensors files of a directory, whose index may name several."""
    if (directory / WEIGHTS).is_file():
        yield directory / WEIGHTS
        return
    index = directory / INDEX
    if not index.is_file():
        raise ModelError(f"model.name: {_no_weights(directory)}")
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise ModelError(f"model.name: {index}: has no `weight_map`; {_AGAIN}")
    held: set[str] = set()
    for name in sorted(set(weight_map.values())):
        if "/" in name or "\0" in name or not (directory / name).is_file():
            lost = sum(file == name for file in weight_map.values())
            raise ModelError(
                f"model.name: {index}: refers to the file {name!r}, which does not exist ({lost} tensors); {_AGAIN}"
            )
        held |= set(tensor_sizes(directory / name))
        yield directory / name
    absent = [name for name in weight_map if name not in held]
    if absent:
        raise ModelError(
            f"model.name: {index}: {named(absent)}, which the files do not have; {_AGAIN}, all files of one version"
        )


def _check_kind(directory: Path, config: dict[str, Any]) -> None:
    path = directory / CONFIG
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelError(f"model.name: {path}: has no `model_type`, so the architecture is unknown; {_AGAIN}")
    if config.get("is_encoder_decoder") is True:
        raise ModelError(
            f"model.name: {path}: {config['model_type']} is an encoder-decoder model; use a decoder-only model"
        )
    if "quantization_config" in config:
        raise ModelError(
            f"model.name: {path}: its weights are quantized in a format that is not supported; "
            f"use the model that it was quantized from"
        )
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise ModelError(f"model.name: {path}: architectures: is not a list of names; {_AGAIN}")
    for name in architectures:
        if name.endswith(("Classification", "MaskedLM", "QuestionAnswering", "RewardModel")):
            raise ModelError(
                f"model.name: {path}: {name} is a classifier or reward model, not a language "
                f"model; use the model that it was trained from"
            )


def _check_sizes(directory: Path, config: dict[str, Any], numbers: list[int]) -> None:
    """Refuse sizes that are not counts, or that no tensor of the files can have: a library would allocate for them."""
    limits = dict.fromkeys(_SIZES, max(numbers, default=0)) | {_DEPTH: _LARGEST_LIST * len(numbers)}
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key, limit in limits.items():
            value = part.get(key)
            if value is None:
                continue
            counts = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if not counts and not (isinstance(value, list) and key == "intermediate_size"):
                raise ModelError(
                    f"model.name: {directory / CONFIG}: {key}: {str(value)[:40]} is not a positive "
                    f"whole number; {_AGAIN}"
                )
            if counts and value > limit:
                raise ModelError(
                    f"model.name: {directory / CONFIG}: {key}: {value} is more than the weights can have "
                    f"({len(numbers)} tensors, the largest of {max(numbers, default=0):,} numbers); {_AGAIN}"
                )


def _no_config(directory: Path) -> str:
    if (directory / "config.yaml").is_file():
        return (
            f"{directory} is the directory of a run; give the `final` directory of one of its "
            f"phases, or what `triphase export` wrote"
        )
    inside = sorted(str(path.parent) for name in (CONFIG, ADAPTER_CONFIG) for path in directory.glob(f"*/{name}"))
    hint = f"; did you mean {inside[0]}?" if inside else "; give the directory that the model was saved to"
    return f"{directory} has no {CONFIG}{hint}"


def _no_weights(directory: Path) -> str:
    pickles = sorted(path.name for path in directory.glob("*.bin"))
    if pickles:
        return (
            f"{directory} has its weights in {pickles[0]}, a pickle, which is never loaded; if "
            f"you trust it, load it yourself and save it with save_pretrained(…), which writes model.safetensors"
        )
    shards = sorted(path.name for path in directory.glob("*.safetensors"))
    if shards:
        return f"{directory} has {shards[0]} but no {INDEX}; {_AGAIN}, with that file"
    return f"{directory} has no weights (no {WEIGHTS}, no {INDEX}); {_AGAIN}"


def named(tensors: list[str], shown: int = 3) -> str:
    """The first of some tensors, and their number."""
    first = ", ".join(sorted(tensors)[:shown])
    return first if len(tensors) <= shown else f"{first} and {len(tensors) - shown} more"


def _pointer(path: Path) -> str:
    return (
        f"model.name: {path}: is a Git LFS pointer, not the file; run `git lfs pull` in its repository, or download "
        "the model again"
    )


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product
