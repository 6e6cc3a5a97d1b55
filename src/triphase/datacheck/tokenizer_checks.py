"""The tokenizer of a configuration: token counts of texts, and notes on peculiarities. No weights are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triphase.datacheck.lengths import TokenCount
from triphase.datacheck.model_names import place_of
from triphase.errors import ModelError, TriphaseError, first_line_of
from triphase.models.chain import chain_of
from triphase.models.pretrained import notes_on, open_config, open_tokenizer
from triphase.settings.schema import ModelSettings, RunSettings
from triphase.tokens.template import Template


def token_count(settings: RunSettings) -> TokenCount | None:
    """A function that counts tokens; None without a tokenizer on this machine.

    A local `tokenizer.json` is read by the small library under transformers, which needs a tenth of the memory.
    """
    try:
        place = str(Path(place_of(settings.model.name)).expanduser())
        if settings.model.adapter is None and Path(place, "tokenizer.json").is_file():
            return _light_count(Path(place, "tokenizer.json"))
        tokenizer = _opened(settings.model)
    except (ImportError, OSError, ValueError, KeyError, TriphaseError):
        return None  # `tokenizer_notes` says why

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids] if texts else []

    return count


def tokenizer_notes(settings: RunSettings) -> list[str]:
    """Notes on padding, end of turn and chat template, or on why the tokenizer cannot be checked."""
    try:
        tokenizer = _opened(settings.model)
    except ImportError:
        return ["transformers is not installed here: lengths are estimated, the chat template is not checked"]
    except (OSError, ValueError, KeyError, TriphaseError) as error:
        reason = "" if isinstance(error, TriphaseError) else f" ({first_line_of(error)})"  # ours ends the check
        return [f"the tokenizer of {settings.model.name} cannot be opened{reason}: lengths are estimated"]
    return [*_notes_on(tokenizer, settings.model), *_of_the_size(settings)]


def open_template(settings: ModelSettings) -> Template:
    """The chat template and tokenizer of the model.

    Raises:
        ModelError: they cannot be opened, or do not work.
    """
    try:
        chain = chain_of(settings, place_of)
        template = Template.of(open_tokenizer(chain.tokenizer, settings), settings)
        rows = getattr(open_config(chain.base, chain.settings).get_text_config(), "vocab_size", None)
    except ImportError as error:
        raise ModelError(f"model.name: {error.name} is not installed; run: pip install 'triphase[train]'") from None
    if isinstance(rows, int) and not chain.adapters:  # which may bring their own rows
        template.rows = rows
    return template


def _light_count(path: Path) -> TokenCount:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a plain Exception
        raise ValueError(str(error)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(found.ids) for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _opened(settings: ModelSettings) -> Any:
    return open_tokenizer(chain_of(settings, place_of).tokenizer, settings)


def _of_the_size(settings: RunSettings) -> list[str]:
    try:
        chain = chain_of(settings.model, place_of, weights=False)
        config = open_config(chain.base, chain.settings)
    except TriphaseError:
        return []  # `check_model` reports it
    return notes_on(config, layers=settings.adapters.layers, max_length=settings.model.max_length)


def _notes_on(tokenizer: Any, settings: ModelSettings) -> list[str]:
    found = []
    if tokenizer.pad_token_id is None:
        found.append("the tokenizer has no padding token; another special token is used for it")
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        found.append("the tokenizer pads with its end of sequence; another special token is used, by position")
    if not getattr(tokenizer, "chat_template", None):
        found.append(
            "the tokenizer has no chat template: prompts are given as plain text (model.chat_template: plain or chatml "
            "writes turns)"
        )
    try:
        template = Template.of(tokenizer, settings)
    except ModelError as error:
        return [*found, str(error)]
    except Exception as error:
        return [*found, f"the chat template fails ({first_line_of(error)}); fix it in the tokenizer's directory"]
    if template.is_chat and template.end_id != tokenizer.eos_token_id:
        end = tokenizer.convert_ids_to_tokens(template.end_id)
        found.append(f"turns end with {end}, not with the tokenizer's end of sequence; training uses the end of turn")
    return [*found, *template.notes]
