"""The locations of a model's parts: adapters are followed to their base, and every file is checked on the way.

No weight is read, and torch is not needed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from triphase.errors import ModelError
from triphase.models.files import ADAPTER_CONFIG, check_files, read_object, tensor_sizes
from triphase.models.places import directory_of, fetched
from triphase.settings.schema import ModelSettings

OWN = "model.adapter"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_LONGEST_CHAIN = 8
_STARTS_ON_ANOTHER_BASE = ("pissa_niter", "loftq", "corda", "lora_ga")
"""Initializations of peft that draw, or read from data, what they take out of the base."""
PlaceOf = Callable[[str, Path | None], str]


def as_named(name: str, adapter: Path | None) -> str:
    """The name itself: the default of ``place_of``."""
    return name


@dataclass(frozen=True, slots=True)
class Chain:
    """The locations of a model's parts.

    Attributes:
        name: of the whole model, as exported adapters refer to it.
        base: the directory or hub id of the base; ``settings`` are those to open it with.
        adapters: directories of adapters, in the order in which they are merged.
        tokenizer: the directory or hub id of the tokenizer.
        own: the adapter of `model.adapter`, the last of ``adapters``.
    """

    name: str
    base: str
    settings: ModelSettings
    adapters: tuple[Path, ...]
    tokenizer: str
    own: Path | None = None

    def setting_of(self, adapter: Path) -> str:
        """The setting that names one of the adapters."""
        return OWN if adapter == self.own else "model.name"

    @property
    def directory(self) -> Path | None:
        """The base's directory; None for a hub id."""
        path = Path(self.base)
        return path if path.is_dir() else None


def chain_of(settings: ModelSettings, place_of: PlaceOf = as_named, *, weights: bool = True) -> Chain:
    """Follow adapters to their base, and check every file on the way, without reading a weight.

    Without ``weights`` the base need not have any.

    Raises:
        ModelError: something is missing or damaged, or the model is not a decoder.
    """
    name = place_of(settings.name, None)
    adapters: list[Path] = []
    directory = directory_of(name)
    own = None if settings.adapter is None else own_adapter(settings.adapter, settings.name, name, place_of)
    while directory is not None and is_adapter(directory):
        if directory in adapters or len(adapters) == _LONGEST_CHAIN:
            raise ModelError(f"model.name: {directory}: its adapters refer to each other as base, not to a model")
        adapters.insert(0, directory)
        adapter, base = directory, place_of(base_of(directory), directory)
        try:
            directory = directory_of(base)
        except ModelError as error:
            raise ModelError(
                f"{error}; {adapter / ADAPTER_CONFIG} names it as base_model_name_or_path: correct it there"
            ) from error
    place = str(directory) if directory is not None else base if adapters else name
    if directory is not None:
        check_files(directory, weights=weights)
    if adapters:  # revision and trust are those of the model in the settings
        settings = settings.model_copy(update={"revision": None, "trust_remote_code": False})
    if own is not None:
        adapters.append(own)
    with_tokenizer = [str(adapter) for adapter in reversed(adapters) if has_tokenizer(adapter)]
    opened = str(own or Path(name).expanduser()) if adapters or directory is not None else name
    return Chain(opened, place, settings, tuple(adapters), (with_tokenizer or [place])[0], own)


def own_adapter(named: str, model: str, place: str, place_of: PlaceOf) -> Path:
    """The directory of the adapter in `model.adapter`, which must fit the model at ``place``.

    Raises:
        ModelError: it is not an adapter, is damaged, or belongs to another base.
    """
    with errors_under(OWN):
        directory = directory_of(named) or fetched(named)
        if not is_adapter(directory):
            raise ModelError(
                f"model.name: {directory} has no {ADAPTER_CONFIG}; give the directory that peft saved an adapter to"
            )
        base = base_of(directory)
        if not is_same(base, model) and not is_same(place_of(base, directory), place):
            raise ModelError(
                f"model.name: {directory} is an adapter of {base}, and model.name is {model}; "
                f"use that model, or correct base_model_name_or_path in "
                f"{directory / ADAPTER_CONFIG} if both are the same model"
            )
        return directory


def is_same(one: str, other: str) -> bool:
    """Whether two model names refer to the same model: a local copy has the last part of its hub id as name.

    Two hub ids of different owners are different models, whatever their last parts.
    """
    first, second = (Path(name).expanduser() for name in (one, other))
    if one == other or (first.is_dir() and second.is_dir()):
        return one == other or first.resolve() == second.resolve()
    published = [len(path.parts) <= 2 and not path.is_absolute() and not path.is_dir() for path in (first, second)]
    if all(published) and len(first.parts) == len(second.parts):
        return one.lower() == other.lower()
    return any(published) and first.name.lower() == second.name.lower()


@contextmanager
def errors_under(setting: str) -> Iterator[None]:
    """Report errors of a model under another setting than `model.name`."""
    try:
        yield
    except ModelError as error:
        raise ModelError(str(error).replace("model.name: ", f"{setting}: ", 1)) from error


def is_adapter(directory: Path | None) -> bool:
    """Whether a directory contains an adapter and not a whole model."""
    return directory is not None and (directory / ADAPTER_CONFIG).is_file()


def has_tokenizer(directory: Path) -> bool:
    """Whether an adapter's directory has a tokenizer of its own."""
    return any((directory / name).is_file() for name in _TOKENIZER_FILES)


def base_of(directory: Path, *, scores: bool = False) -> str:
    """The base that an adapter names, after a check of its files; ``scores`` allows that of a reward model.

    Raises:
        ModelError: it is not a low-rank adapter of a language model, it names no base, or its file is damaged.
    """
    path = directory / ADAPTER_CONFIG
    config = read_object(path)
    if config.get("task_type") == "SEQ_CLS" and not scores:
        raise ModelError(
            f"model.name: {directory} is the adapter of a reward model, which generates no text; give a policy's"
        )
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"model.name: {path}: peft_type {str(config.get('peft_type'))[:40]} cannot be merged; only LORA"
        )
    if config.get("layer_replication"):
        raise ModelError(
            f"model.name: {path}: layer_replication makes another model of the base, into which it cannot be merged; "
            "name an adapter without it"
        )
    if (start := str(config.get("init_lora_weights")).lower()).startswith(_STARTS_ON_ANOTHER_BASE):
        raise ModelError(
            f"model.name: {path}: init_lora_weights {start[:40]} began on a changed base, which the files do not hold; "
            "save the adapter again with save_pretrained(…, path_initial_model_for_weight_conversion=…)"
        )
    rank, targets = config.get("r"), config.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ModelError(
            f"model.name: {path}: r is {str(rank)[:40]!r}; it must be a whole number. Save the adapter again"
        )
    if not targets or not isinstance(targets, str | list) or not all(isinstance(name, str) for name in targets):
        raise ModelError(
            f"model.name: {path}: target_modules is {str(targets)[:40]!r}, which lists no "
            f"layers; save the adapter again"
        )
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"model.name: {path}: has no base_model_name_or_path; set it to the model it belongs to")
    if not (directory / ADAPTER_WEIGHTS).is_file():
        pickled = " (adapter_model.bin is a pickle, which is never opened)" if _has_pickle(directory) else ""
        raise ModelError(f"model.name: {directory} has no {ADAPTER_WEIGHTS}{pickled}; save the adapter again with peft")
    tensor_sizes(directory / ADAPTER_WEIGHTS)
    return base


def _has_pickle(directory: Path) -> bool:
    return (directory / "adapter_model.bin").is_file()
