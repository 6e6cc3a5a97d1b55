"""The README.md of an exported directory: its contents, and how plain libraries load them.

The tests run its Python blocks unchanged.
"""

import json
import re
from typing import Any

from triphase.models.roles import SharedModel
from triphase.records.types import Message
from triphase.records.visible import as_code

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
OPENED = "directory = {directory!r}\ntokenizer = AutoTokenizer.from_pretrained(directory)\n"
_ASKED = """
output = model.generate(**inputs, {limited})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def policy_card(shared: SharedModel, base: str) -> str:
    """The card of a policy that is an adapter on ``base``."""
    code = (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig\n\n"
        f"{OPENED.format(directory='.')}"
        f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), directory).eval()\n"
        f"{_prompt(shared)}"
        f"{_ASKED.format(limited='generation_config=GenerationConfig.from_pretrained(directory, max_new_tokens=64)')}"
    )
    return (
        f"{front(base, 'lora')}# A policy trained by Triphase\n\nA LoRA adapter on {as_code(base)}.{note(shared)} "
        f"{_ends(shared)} "
        "peft does not read the generation configuration of an adapter's directory: pass it as here, or name the "
        f"end of turn (`eos_token_id={shared.template.end_id}`; `stop_token_ids` for vLLM).\n\n"
        f"```python\n{code}```\n"
    )


def whole_card(shared: SharedModel) -> str:
    """The card of a policy with its own full weights."""
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"{OPENED.format(directory='.')}"
        "model = AutoModelForCausalLM.from_pretrained(directory).eval()\n"
        f"{_prompt(shared)}{_ASKED.format(limited='max_new_tokens=64')}"
    )
    return f"{front(None, None)}# A policy trained by Triphase\n\n{_ends(shared)}\n\n```python\n{code}```\n"


def is_hub_id(name: str) -> bool:
    """Whether a model's name could be a hub id."""
    return _HUB_ID.fullmatch(name) is not None


def front(base: str | None, tag: str | None) -> str:
    """The metadata that the hub reads at the top of a card."""
    lines = ["---", f"library_name: {'transformers' if base is None else 'peft'}"]
    if base is not None and is_hub_id(base):
        lines.append(f"base_model: {json.dumps(base)}")
    tags = ["triphase", "rlhf", *([tag] if tag else [])]
    return "\n".join([*lines, f"tags: [{', '.join(tags)}]", "---", "", ""])


def note(shared: SharedModel) -> str:
    """The card's section about the base."""
    return f" {shared.base_note}" if shared.base_note else ""


def end_token(shared: SharedModel) -> str:
    """The end of turn, by its text and id."""
    template = shared.template
    end = template.tokenizer.convert_ids_to_tokens(template.end_id)
    return f"the end of turn ({as_code(end)}, id {template.end_id})"


def _ends(shared: SharedModel) -> str:
    return f"Responses end with {end_token(shared)}; `generation_config.json` holds it."


def _prompt(shared: SharedModel) -> str:
    if shared.template.is_chat:
        return (
            f"conversation = {question(shared)!r}\n"
            "inputs = tokenizer.apply_chat_template(\n"
            '    conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True\n)'
        )
    cut = len(shared.template.appended)
    return 'inputs = tokenizer("How are you?", return_tensors="pt")\nkept = ("input_ids", "attention_mask")\n' + (
        f"inputs = {{name: inputs[name][:, :-{cut}] for name in kept}}  # the tokenizer ends every text\n"
        if cut
        else "inputs = {name: inputs[name] for name in kept}\n"
    )


def question(shared: SharedModel) -> list[dict[str, str]]:
    """A conversation for the example."""
    return shared.template.conversation([Message("user", "How are you?")])


def end_at_turn(tokenizer: Any, end_token: str, *, closes: bool) -> None:
    """Make a tokenizer's chat template end at the end of turn if a conversation ends with a response.

    Args:
        end_token: the text of the end of turn.
        closes: whether the template already writes it.
    """
    end = f"{{{{ {json.dumps(end_token, ensure_ascii=False)} }}}}"
    kept = "triphase_text.rpartition(triphase_end)[0]" if closes else "triphase_text"
    cut = (
        "{%- if add_generation_prompt or messages[-1].role != 'assistant' -%}{{ triphase_text }}"
        f"{{%- else -%}}{{{{ {kept} ~ triphase_end }}}}{{%- endif -%}}"
    )

    def ended(template: str) -> str:
        return f"{{% set triphase_text +%}}{template}{{%+ endset %}}{{% set triphase_end %}}{end}{{% endset %}}{cut}"

    template = tokenizer.chat_template
    if isinstance(template, str):
        tokenizer.chat_template = ended(template)
    else:
        tokenizer.chat_template = {name: ended(text) for name, text in template.items()}
