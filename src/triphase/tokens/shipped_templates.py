"""Chat templates by name for base models, whose tokenizers have none.

`chatml` writes a turn as `<|im_start|>role`, a line break, the text and `<|im_end|>`; `plain` as `User:`, a line break,
the text and an empty line. If the tokenizer has no token `<|im_end|>`, and with `plain`, a response is closed by its
end of sequence: the model must learn a single token as the end. What the tokenizer puts before every text comes first.
"""

from typing import Any

from triphase.errors import ModelError
from triphase.tokens.probing import affixes

CHATML, PLAIN = "chatml", "plain"
_IM_END = "<|im_end|>"
_CHATML = (
    "{%- for message in messages -%}{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content }}"
    "{{ END if message.role == 'assistant' else '<|im_end|>' }}{{ '\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
_PLAIN = (
    "{%- for message in messages -%}{{ message.role | capitalize ~ ':\\n' ~ message.content }}"
    "{%- if message.role == 'assistant' -%}{{ END }}{%- endif -%}{{ '\\n\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:\\n' }}{%- endif -%}"
)


def give_template(tokenizer: Any, setting: str | None) -> None:
    """Give a tokenizer the chat template of `model.chat_template`: a name, or the Jinja text; None leaves its own.

    Raises:
        ModelError: it could not close a response.
    """
    if setting is None:
        return
    if setting not in (CHATML, PLAIN):
        tokenizer.chat_template = setting
        return
    ends = setting == CHATML and _IM_END in tokenizer.get_vocab()
    end = _IM_END if ends else tokenizer.eos_token
    if end is None:
        raise ModelError(
            f"model.chat_template: {setting} ends a response with the end of sequence, but the tokenizer has none; set "
            "eos_token in tokenizer_config.json"
        )
    before = "".join(tokenizer.convert_ids_to_tokens(list(affixes(tokenizer)[0])))
    text = (_CHATML if setting == CHATML else _PLAIN).replace("END", _quoted(end))
    tokenizer.chat_template = (f"{{{{- {_quoted(before)} -}}}}" if before else "") + text


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
