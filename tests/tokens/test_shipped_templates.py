"""Chat templates by name: prompt and answer are what the template writes, and one token ends an answer."""

from pathlib import Path

import pytest
from tests.small import END, UNKNOWN, WORDS, tokenizer
from tests.tokens.test_probing import with_affixes
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from triphase.errors import ModelError, SettingsError
from triphase.records.types import Message
from triphase.settings.loading import load_settings
from triphase.tokens.shipped_templates import give_template
from triphase.tokens.template import Template

TALK = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Who"))


def bytes_alone(*special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, as that of GPT-2 without merges: white space and line breaks are tokens."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE({sign: place for place, sign in enumerate(signs)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", pad_token="<pad>")
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def test_plain_turns() -> None:
    made = bytes_alone()
    give_template(made, "plain")
    template = Template(made)
    text = made.decode(template.prompt_ids(TALK))
    assert text == "System:\nBe kind.\n\nUser:\nHi\n\nAssistant:\nYes?<eos>\n\nUser:\nWho\n\nAssistant:\n"
    assert made.convert_ids_to_tokens(template.end_id) == "<eos>"
    assert template.notes == ()  # prompt and answer are what the template writes of a whole dialogue


@pytest.mark.parametrize(("special", "end"), [(("<|im_start|>", "<|im_end|>"), "<|im_end|>"), ((), "<eos>")])
def test_chatml_ends_with_its_own_token_where_there_is_one(special: tuple[str, ...], end: str) -> None:
    made = bytes_alone(*special)
    give_template(made, "chatml")
    template = Template(made)
    turns = [f"<|im_start|>{m.role}\n{m.content}{end if m.role == 'assistant' else '<|im_end|>'}\n" for m in TALK]
    assert made.decode(template.prompt_ids(TALK)) == "".join(turns) + "<|im_start|>assistant\n"
    assert made.convert_ids_to_tokens(template.end_id) == end
    assert made.decode(template.response_ids("Me")) == f"Me{end}"
    assert template.notes == ()


def test_what_the_tokenizer_puts_before_a_text_comes_first_once() -> None:
    made = with_affixes(None, f"{UNKNOWN} $A")
    give_template(made, "plain")
    rendered = Template(made).render([{"role": "user", "content": WORDS[0]}], open_turn=True)
    assert rendered.startswith(UNKNOWN) and rendered.count(UNKNOWN) == 1


def test_without_an_end_of_sequence_it_is_refused() -> None:
    with pytest.raises(ModelError, match=r"model\.chat_template: plain ends a response with the end of sequence"):
        give_template(tokenizer(None, eos_token=None), "plain")
    kept = tokenizer()
    give_template(kept, None)
    assert kept.chat_template == tokenizer().chat_template and END in kept.get_vocab()


# In the settings


def settings_with(folder: Path, value: str) -> str | None:
    path = folder / "my.yaml"
    path.write_text(
        f"name: x\nmodel: {{name: 'embedded:tiny', chat_template: '{value}'}}\ndata: {{prompts: [{{path: p.jsonl}}]}}\n"
    )
    return load_settings(path).model.chat_template


def test_the_text_of_a_file_is_kept_in_the_settings(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}")
    assert settings_with(tmp_path, "own.jinja") == "{{ messages[0].content }}"
    assert settings_with(tmp_path, "chatml") == "chatml"
    assert settings_with(tmp_path, "{{ messages }}") == "{{ messages }}"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("chatlm", r"model\.chat_template: chatlm: No such file or directory; write chatml, plain, or the path"),
        ("empty.jinja", r"model\.chat_template: empty\.jinja: has no \{\{ … \}\}, so it is not a Jinja template"),
        (".", r"model\.chat_template: \.: Is a directory"),
    ],
)
def test_what_is_no_template_is_refused(value: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jinja").write_text("Hello\n")
    with pytest.raises(SettingsError, match=told):
        settings_with(tmp_path, value)
