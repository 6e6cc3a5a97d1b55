"""Opens configuration, tokenizer and weights with transformers, and turns its many errors into one line each."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from triphase.errors import ModelError, TriphaseError, first_line_of, is_out_of_memory
from triphase.models.files import named
from triphase.records.hub import bound_hub
from triphase.settings.schema import ModelSettings
from triphase.tokens.shipped_templates import give_template

_OF_A_TOKENIZER = re.compile(r"token|tekken|vocab|merges|piece|spm|\.py$")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_PREFIXES = ("_orig_mod.", "module.", "pretrained_model.", "model._orig_mod.", "_fsdp_wrapped_module.", "base_model.")


@contextmanager
def opening(what: str, name: str) -> Iterator[None]:
    """Translate whatever a library raises over a user's files into a `ModelError`; out-of-memory errors pass
    through."""
    bound_hub()
    try:
        with quiet():
            yield
    except TriphaseError:
        raise
    except ImportError as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"model.name: {what} of {name!r} needs a library: {first_line(error)}") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"model.name: cannot open {what} of {name!r}: {first_line(error)} — {_remedy(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, with its type if the text alone is unclear (a KeyError's)."""
    text, kind = first_line_of(error, 240), type(error).__name__
    return text if isinstance(error, OSError | ValueError | ImportError) or text == kind else f"{kind}: {text}"


def options_of(settings: ModelSettings) -> dict[str, Any]:
    """The arguments of every call of ``from_pretrained``."""
    options: dict[str, Any] = {"trust_remote_code": bool(settings.trust_remote_code)}
    if settings.revision is not None:
        options["revision"] = settings.revision
    return options


def open_config(place: str, settings: ModelSettings) -> Any:
    """The configuration of a decoder.

    Raises:
        ModelError: it cannot be opened, or is not a decoder's.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    with opening("the configuration", settings.name):
        config = AutoConfig.from_pretrained(place, **options_of(settings))
        own = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if config.model_type not in KNOWN and not own:
        raise ModelError(
            f"model.name: {settings.name!r} has the type {config.model_type}, which is not a "
            f"decoder-only language model; use a model of the Llama, Mistral or Qwen family"
        )
    return config


def notes_on(config: Any, *, layers: int | str, max_length: int) -> list[str]:
    """Notes on `adapters.layers`, `model.max_length`, and experts."""
    notes = (depth_note(config, layers), positions_note(config, max_length), experts_note(config))
    return [note for note in notes if note is not None]


def depth_note(config: Any, layers: int | str) -> str | None:
    """A note if `adapters.layers` is more than the model has; else None."""
    known = getattr(config.get_text_config(), "num_hidden_layers", None)
    if not isinstance(known, int) or not isinstance(layers, int) or layers <= known:
        return None
    return f"adapters.layers = {layers}, but the model has {known} layers: all of them are adapted"


def positions_note(config: Any, max_length: int) -> str | None:
    """A note if texts may be longer than the positions in the model's configuration; else None.

    Rotary positions continue past the last trained position, and nothing is refused: the model was not trained on them.
    """
    text = config.get_text_config()
    known = getattr(text, "max_position_embeddings", None)
    if not isinstance(known, int):
        return None
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if scaling.get("factor") and scaling.get("original_max_position_embeddings"):
        known = max(known, int(scaling["factor"] * scaling["original_max_position_embeddings"]))
    if known >= max_length:
        return None
    return (
        f"model.max_length = {max_length} is more than the {known} positions of the model (max_position_embeddings in "
        "its config.json): it was not trained beyond them; lower it"
    )


def experts_note(config: Any) -> str | None:
    """A note on a mixture of experts; None for other models."""
    text = config.get_text_config()
    counts = [getattr(text, name, None) for name in _EXPERTS]
    count = next((count for count in counts if isinstance(count, int) and count > 1), None)
    if count is None:
        return None
    return (
        f"the model has {count} experts: their weights are fused tensors, not linear layers, and get "
        f"neither an adapter nor model.quantization; its other linear layers do (sft.method: full trains all)"
    )


def open_tokenizer(place: str, settings: ModelSettings) -> Any:
    """The tokenizer, with the chat template of the settings if they name one.

    Raises:
        ModelError: it cannot be opened.
    """
    from transformers import AutoTokenizer

    if os.path.isdir(place) and not any(map(_OF_A_TOKENIZER.search, os.listdir(place))):
        raise ModelError(  # transformers reports it otherwise, or makes an empty tokenizer of the model's type
            f"model.name: {settings.name!r} contains no tokenizer; copy the model's tokenizer files into it "
            "(tokenizer.json, tokenizer_config.json)"
        )
    with opening("the tokenizer", settings.name):
        tokenizer = AutoTokenizer.from_pretrained(place, **options_of(settings))
    give_template(tokenizer, settings.chat_template)
    return tokenizer


def open_weights(place: str, settings: ModelSettings, **options: Any) -> Any:
    """The model, with each of its tensors loaded from the files, and each tensor of the files used.

    Raises:
        ModelError: tensors are missing, unexpected, or of another shape: none is initialized at random, none ignored.
    """
    from transformers import AutoModelForCausalLM

    with opening("the weights", settings.name):
        found: Any = AutoModelForCausalLM.from_pretrained(
            place,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            **options_of(settings),
            **options,
        )
    model, report = found
    problem = _problem(report)
    if problem is not None:
        raise ModelError(f"model.name: {settings.name!r}: {problem}")
    return model


def _problem(report: dict[str, Any]) -> str | None:
    """Mismatches between the files and the model, and the remedy."""
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, found, wanted = mismatched[0]
        more = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        return (
            f"{name} has the shape {tuple(found)} in the files, but config.json says {tuple(wanted)}{more}; "
            "configuration and weights belong to different models: copy both from the same one"
        )
    missing, unexpected = list(report["missing_keys"]), list(report["unexpected_keys"])
    if report["error_msgs"]:
        return f"the weights cannot be loaded ({str(report['error_msgs'][0])[:200]}); download or copy the model again"
    if not missing and not unexpected:
        return None
    parts = [f"the files lack {named(missing)}"] if missing else []
    parts += [f"the model has no {named(unexpected)}"] if unexpected else []
    return f"{' and '.join(parts)}; {_advice(missing, unexpected)}"


def _advice(missing: list[str], unexpected: list[str]) -> str:
    for prefix in _PREFIXES:
        if unexpected and all(name.startswith(prefix) or "." not in name for name in unexpected):
            return (
                f"the names begin with {prefix!r}, which a wrapper added: save the model inside "
                f"the wrapper with save_pretrained(…), or remove {prefix!r} from the names"
            )
    if any(name.split(".")[0] in ("score", "classifier", "v_head", "value_head") for name in unexpected):
        return "it is a reward or value model, not a language model: use the model that it was trained from"
    if missing:
        return "missing weights are never initialized at random: save or download the complete model again"
    return "the configuration describes another (smaller) model: copy config.json and weights from the same model"


def _remedy(error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return "set model.trust_remote_code and model.revision if you trust its authors"
    if isinstance(error, OSError) and ("couldn't connect" in text or "offline" in text or "not a local folder" in text):
        return "there is no such directory, and a hub id needs the network once; check the spelling"
    return "check the name and the files: a decoder-only model with config.json, tokenizer and safetensors weights"


@contextmanager
def quiet() -> Iterator[None]:
    """Disable the progress bars and tables of transformers: errors are reported in one line."""
    from transformers.utils import logging as theirs

    logger = theirs.get_logger("transformers")
    before = logger.level
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
