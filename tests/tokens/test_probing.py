"""Prompt and response together equal the template's rendering of the dialogue; a difference is noted."""

from typing import Any

import pytest
from tests.small import CHAT, END, UNKNOWN, tokenizer
from tokenizers import processors

from triphase.records.types import Message
from triphase.settings.schema import ModelSettings
from triphase.tokens.template import Template

ASK = (Message("user", "oak pine"),)


def words(made: Any, ids: Any) -> str:
    return " ".join(made.convert_ids_to_tokens(list(ids)))


def with_affixes(template: str | None, single: str) -> Any:
    """A tokenizer that puts tokens around every text by itself."""
    made = tokenizer(template)
    names = [(token, made.convert_tokens_to_ids(token)) for token in (END, UNKNOWN, "<user>") if token in single]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=names)
    return made


# What the tokenizer puts behind every text


@pytest.mark.parametrize(
    ("single", "prompt", "appended"),
    [
        (f"$A {END}", "oak pine", 1),
        (f"{UNKNOWN} $A {END}", f"{UNKNOWN} oak pine", 1),
        (f"<user> $A {END} {END}", "<user> oak pine", 2),
        (f"{UNKNOWN} $A", f"{UNKNOWN} oak pine", 0),
    ],
)
def test_a_prompt_of_a_base_model_is_not_ended(single: str, prompt: str, appended: int) -> None:
    made = with_affixes(None, single)
    assert words(made, made("oak pine").input_ids).count(END) == appended
    template = Template(made)
    assert words(made, template.prompt_ids(ASK)) == prompt
    assert words(made, template.response_ids("red")) == f"red {END}"
    assert any(f"appends {END}" in note and "it is left out of prompts" in note for note in template.notes) is (
        appended > 0
    )


def test_a_chat_template_is_not_ended_either() -> None:
    made = with_affixes(CHAT, f"$A {END}")
    assert words(made, Template(made).prompt_ids(ASK)) == "<user> oak pine <end> <assistant>"
    assert Template(made).notes == ()


# A generation prompt that the template lacks

LOOP = "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}"


@pytest.mark.parametrize(
    "text",
    [
        LOOP,
        "{% for m in messages %}{{ '<' + m['role'] + '>' }} {{ m['content'] | trim }} <end>\n{% endfor %}",
        {"default": LOOP, "tool_use": CHAT},
    ],
    ids=["bare", "trimmed", "several"],
)
def test_a_missing_generation_prompt_is_what_the_template_writes_before_an_answer(text: Any) -> None:
    made = tokenizer(text)
    template = Template(made)
    assert words(made, template.prompt_ids(ASK)) == "<user> oak pine <end> <assistant>"
    dialogue = (*ASK, Message("assistant", "elm"), Message("user", "fir"))
    shown = words(made, template.prompt_ids(dialogue))
    assert shown == "<user> oak pine <end> <assistant> elm <end> <user> fir <end> <assistant>"
    assert template.notes == ("the chat template has no generation prompt: '<assistant>' is appended to prompts",)
    # Exported tokenizers have it too, and a second look finds nothing to do.
    rendered = made.apply_chat_template(
        [{"role": "user", "content": "oak"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered.split() == "<user> oak <end> <assistant>".split()
    assert Template(made).notes == ()


def test_a_template_that_writes_nothing_before_an_answer_has_nothing_added() -> None:
    text = "{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} <system>{% else %}"
    made = tokenizer(text + " {{ m.content }} <end>{% endif %}{% endfor %}")
    template = Template(made)
    assert words(made, template.prompt_ids(ASK)) == "<user> oak pine <system>"
    assert template.notes == ()


# What cannot be mended is said


@pytest.mark.parametrize(
    ("closing", "note"),
    [
        ("over {{ m.content }} <end> ", "training uses … "),
        ("{{ m.content }} over <end> ", "the template writes … "),
        ("{{ m.content }} ", f"does not end a response: {END} is appended to it"),
        ("<assistant> {{ m.content }} <end> ", "differ from what the chat template renders"),
    ],
)
def test_where_training_differs_from_the_template_a_note_shows_both(closing: str, note: str) -> None:
    text = (
        "{% for m in messages %}<{{ m.role }}> {% if m.role == 'assistant' %}"
        + closing
        + "{% else %}{{ m.content }} <end> {% endif %}{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    (found,) = Template(tokenizer(text)).notes
    assert note in found and "\n" not in found


def test_an_ordinary_template_has_no_note() -> None:
    assert Template(tokenizer()).notes == () == Template(tokenizer(None)).notes


# The date

DATED = {
    "a day": "{{ strftime_now('%d') }}",
    "Llama 3": "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{% endif %}{{ date_string }}",
    "a year": "{{ strftime_now('%Y') }}",
}


@pytest.mark.parametrize("text", DATED.values(), ids=DATED.keys())
def test_the_date_of_a_template_is_that_of_the_settings(text: str) -> None:
    made = tokenizer(text + " " + CHAT, extra=["03", "12", "2001", "2010", "03 Feb 2001", "12 Nov 2010"])
    shown = {}
    for date in ("2001-02-03", "2010-11-12"):
        template = Template.of(made, ModelSettings(name="x", template_date=date))
        assert template.writes_date and any(f"writes the date: {date} is used" in note for note in template.notes)
        shown[date] = words(made, template.prompt_ids(ASK))
    assert shown["2001-02-03"].split(" <user>")[0] in ("03", "2001", "03 Feb 2001")
    assert shown["2010-11-12"].split(" <user>")[0] in ("12", "2010", "12 Nov 2010")


def test_a_template_without_a_date_does_not_depend_on_it() -> None:
    assert not Template(tokenizer()).writes_date
    unused = tokenizer("{% if false %}{{ strftime_now('%Y') }}{% endif %}" + CHAT)
    assert not Template(unused).writes_date
