"""The tokenizer of a configuration, for counting tokens, and what is odd about it. No weights are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triphase.commands.lengths import TokenCount
from triphase.settings.schema import RunSettings


def tokenizer_of(settings: RunSettings) -> tuple[TokenCount | None, list[str]]:
    """How to count tokens (None without a tokenizer at hand), and notes on padding, end of turn and chat template."""
    from triphase.embedded.registry import PREFIX, model_directory
    from triphase.errors import ModelError

    try:
        from transformers import AutoTokenizer
    except ImportError:
        return None, ["transformers is not installed here: lengths are estimated, the chat template is not looked at"]
    name = settings.model.name
    try:
        place = str(model_directory(name)) if name.startswith(PREFIX) else str(Path(name).expanduser())
        options = {} if settings.model.revision is None else {"revision": settings.model.revision}
        tokenizer: Any = AutoTokenizer.from_pretrained(
            place, trust_remote_code=bool(settings.model.trust_remote_code), **options
        )
    except (OSError, ValueError, KeyError, ModelError) as error:
        return None, [f"the tokenizer of {name} cannot be opened ({_first(error)}): lengths are estimated"]
    tokenizer.model_max_length = 1 << 40  # lengths are what is asked for; no warning of long texts

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids] if texts else []

    return count, list(_hazards(tokenizer))


def _hazards(tokenizer: Any) -> list[str]:
    from triphase.errors import ModelError
    from triphase.tokens.template import Template

    found = []
    if tokenizer.pad_token_id is None:
        found.append("the tokenizer has no padding token; another special token is used for it")
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        found.append("the tokenizer pads with its end of sequence; another special token is used, by position")
    if not getattr(tokenizer, "chat_template", None):
        found.append("the tokenizer has no chat template: prompts are given as plain text")
    try:
        template = Template(tokenizer)
    except ModelError as error:
        return [*found, str(error)]
    except Exception as error:
        return [*found, f"the chat template fails ({_first(error)}); mend it in the tokenizer's directory"]
    if template.is_chat and template.end_id != tokenizer.eos_token_id:
        end = tokenizer.convert_ids_to_tokens(template.end_id)
        found.append(f"turns end with {end}, the tokenizer's end of sequence is another; turns are what is learned")
    return found


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
