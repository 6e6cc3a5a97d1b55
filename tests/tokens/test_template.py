"""The tokens that end a turn and that pad, and the tokens of a prompt and a response."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.small import ASSISTANT, CHAT, END, PAD, UNKNOWN, USER, WORDS, tokenizer

from triphase.errors import ModelError
from triphase.records.types import Message
from triphase.tokens.template import Template

ASK = (Message("user", "oak pine"),)
TEMPLATE = Template(tokenizer())


def words(made, ids) -> str:
    return " ".join(made.convert_ids_to_tokens(list(ids)))


# A tokenizer of a chat model


def test_a_prompt_opens_the_assistants_turn() -> None:
    made = tokenizer()
    assert words(made, Template(made).prompt_ids(ASK)) == "<user> oak pine <end> <assistant>"


def test_a_dialogue_keeps_all_its_turns() -> None:
    made = tokenizer()
    dialogue = (Message("system", "red"), *ASK, Message("assistant", "elm"), Message("user", "fir"))
    shown = words(made, Template(made).prompt_ids(dialogue))
    assert shown == "<system> red <end> <user> oak pine <end> <assistant> elm <end> <user> fir <end> <assistant>"


def test_a_response_ends_with_the_end_token_only_where_it_is_finished() -> None:
    made = tokenizer()
    template = Template(made)
    assert words(made, template.response_ids("red green")) == "red green <end>"
    assert words(made, template.response_ids("red green", finished=False)) == "red green"


def test_prompt_and_response_together_are_what_the_template_makes_of_the_whole_dialogue() -> None:
    made = tokenizer()
    template = Template(made)
    whole = made.apply_chat_template(
        [{"role": "user", "content": "oak pine"}, {"role": "assistant", "content": "red green"}], tokenize=False
    )
    expected = made(whole, add_special_tokens=False).input_ids
    assert [*template.prompt_ids(ASK), *template.response_ids("red green")] == expected


CLOSED_BY_ANOTHER_TOKEN = {
    "right after the text": "{{ m.content }}<turn>",
    "after a space": "{{ m.content }} <turn>",
    "after a newline": "{{ m.content }}\n<turn>\n",
    "with a word of the template before it": "{{ m.content }} over <turn>",
    "with the text trimmed": "{{ m.content | trim }} <turn>",
    "with a thought before the text": "<think> </think> {{ m.content }} <turn>",
}


@pytest.mark.parametrize("closing", CLOSED_BY_ANOTHER_TOKEN.values(), ids=CLOSED_BY_ANOTHER_TOKEN.keys())
@pytest.mark.parametrize("eos", [END, None])
def test_the_end_is_the_token_by_which_the_template_closes_a_turn(closing: str, eos: str | None) -> None:
    text = (
        "{% for m in messages %}<user> {% if m.role == 'assistant' %}"
        + closing
        + ("{% else %}{{ m.content }} <turn> {% endif %}{% endfor %}{% if add_generation_prompt %}<user> {% endif %}")
    )
    made = tokenizer(text, extra=["<turn>", "<think>", "</think>"], eos_token=eos)
    template = Template(made)
    assert made.convert_ids_to_tokens(template.end_id) == "<turn>"
    assert words(made, template.response_ids("red")) == "red <turn>"


def test_a_template_that_does_not_close_turns_ends_with_the_tokenizers_own_end() -> None:
    bare = "{% for m in messages %}<user> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<user> {% endif %}"
    made = tokenizer(bare)
    assert made.convert_ids_to_tokens(Template(made).end_id) == END
    with pytest.raises(ModelError, match=r"neither the chat template nor the tokenizer .* set eos_token"):
        Template(tokenizer(bare, eos_token=None))


def test_the_turn_of_a_real_template_ends_as_its_model_does() -> None:
    # ChatML as SmolLM2 and Qwen have it, with an end of sequence that differs from the end of a turn.
    chatml = (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
        " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    made = tokenizer(chatml, extra=["<|im_start|>", "<|im_end|>"])
    assert made.convert_ids_to_tokens(Template(made).end_id) == "<|im_end|>"


# A tokenizer of a base model


def test_a_base_model_reads_the_plain_text() -> None:
    made = tokenizer(None)
    template = Template(made)
    assert not template.is_chat
    assert words(made, template.prompt_ids([Message("system", "red"), *ASK])) == "red oak pine"
    assert words(made, template.response_ids("elm")) == f"elm {END}"


def test_a_base_model_without_an_end_is_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError, match=r"no end-of-sequence token; set eos_token"):
        Template(tokenizer(None, eos_token=None))


# Padding


@pytest.mark.parametrize("pad", [END, None])
def test_padding_differs_from_the_end_even_where_the_tokenizer_says_otherwise(pad: str | None) -> None:
    template = Template(tokenizer(pad_token=pad))
    assert template.pad_id != template.end_id
    assert template.tokenizer.convert_ids_to_tokens(template.pad_id) == UNKNOWN
    assert template.tokenizer.pad_token_id == template.pad_id  # in an exported tokenizer too


def test_a_padding_token_of_its_own_is_kept() -> None:
    template = Template(tokenizer())
    assert template.tokenizer.convert_ids_to_tokens(template.pad_id) == PAD


def test_where_the_end_is_the_only_special_token_the_remedy_is_named() -> None:
    made = tokenizer(None, pad_token=None, unk_token=None)
    made.add_special_tokens({"eos_token": END})
    told = rf"only special token is its end \({made.eos_token_id}\).*pad_token.*resize_token_embeddings"
    with pytest.raises(ModelError, match=told):
        Template(made)


# Text


def test_special_tokens_and_outer_space_are_no_text() -> None:
    made = tokenizer()
    template = Template(made)
    ids = made.convert_tokens_to_ids(["red", UNKNOWN, "green", END])
    assert template.text(ids) == "red green"
    assert template.text([template.end_id]) == ""


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join))
def test_text_survives_the_way_to_tokens_and_back(text: str) -> None:
    assert TEMPLATE.text(TEMPLATE.response_ids(text)) == text
    assert TEMPLATE.response_ids(text)[:-1] == TEMPLATE.response_ids(text, finished=False)


def test_names_of_the_small_tokenizer_are_those_of_its_template() -> None:
    assert USER in CHAT.replace("{{ message.role }}", "user") and ASSISTANT in CHAT
