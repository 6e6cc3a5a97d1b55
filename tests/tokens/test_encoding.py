"""Records to ids: empty or too long ones are refused with id, size and remedy; nothing is cut."""

import pytest
from tests.small import CHAT, tokenizer
from tokenizers import processors

from triphase.errors import DataError
from triphase.records.types import Demonstration, Message, Pair, Prompt, RankedGroup
from triphase.tokens.encoding import (
    Encoded,
    TooLong,
    encode_demonstrations,
    encode_groups,
    encode_prompt,
    without_empty,
)
from triphase.tokens.template import Template

TEMPLATE = Template(tokenizer())
BASE = Template(tokenizer(None))


def prompt(text: str, name: str = "p1") -> Prompt:
    return Prompt(name, (Message("user", text),))


def group(*responses: str, finished: tuple[bool, ...] | None = None) -> RankedGroup:
    return RankedGroup(prompt("oak"), responses, finished or (True,) * len(responses), (Pair(0, 1, 1.0),))


def test_a_prompt_of_exactly_the_limit_fits() -> None:
    ids = encode_prompt(prompt("oak pine"), TEMPLATE, room=3, max_length=8)
    assert len(ids) == 5
    with pytest.raises(DataError) as error:
        encode_prompt(prompt("oak pine"), TEMPLATE, room=4, max_length=8)
    message = str(error.value)
    assert "'p1' has 5 tokens" in message and "4 for the response" in message
    assert "model.max_length = 8" in message and "shorten the prompt or raise the limit" in message


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="'p1' has no tokens; remove it"):
        encode_prompt(prompt("  "), BASE, room=1, max_length=8)


def test_demonstrations_keep_their_order_and_end_with_the_end_token() -> None:
    found = encode_demonstrations(
        [Demonstration(prompt("oak"), "red green"), Demonstration(prompt("pine"), "blue")], TEMPLATE, max_length=20
    )
    assert [TEMPLATE.text(item.response) for item in found] == ["red green", "blue"]
    assert [item.response[-1] for item in found] == [TEMPLATE.end_id] * 2
    assert found[0].length == len(found[0].prompt) + 3


def test_a_demonstration_without_text_is_refused() -> None:
    with pytest.raises(DataError, match="response to prompt 'p1' has no tokens; remove it"):
        encode_demonstrations([Demonstration(prompt("oak"), " ")], TEMPLATE, max_length=20)


def test_a_demonstration_that_is_too_long_is_refused_not_cut() -> None:
    with pytest.raises(DataError, match=r"'p1' has 4 tokens; with 4 for the response it exceeds model.max_length = 7"):
        encode_demonstrations([Demonstration(prompt("oak"), "red green blue")], TEMPLATE, max_length=7)


def test_the_responses_of_a_group_end_only_where_they_are_finished() -> None:
    found = encode_groups([group("red green", "blue", finished=(False, True))], TEMPLATE, max_length=20)
    assert [len(response) for response in found[0].responses] == [2, 2]
    assert [response[-1] == TEMPLATE.end_id for response in found[0].responses] == [False, True]


def test_an_empty_response_that_ended_is_its_end_token_and_one_that_was_cut_is_refused() -> None:
    found = encode_groups([group("red", "", finished=(True, True))], TEMPLATE, max_length=20)
    assert found[0].responses[1] == (TEMPLATE.end_id,)
    with pytest.raises(DataError, match="'p1' has a response without tokens; remove that response"):
        encode_groups([group("red", "", finished=(True, False))], TEMPLATE, max_length=20)


def test_room_for_a_group_is_that_of_its_longest_response() -> None:
    encode_groups([group("red", "red green blue")], TEMPLATE, max_length=8)
    with pytest.raises(DataError, match=r"with 4 for the response it exceeds model.max_length = 7"):
        encode_groups([group("red", "red green blue")], TEMPLATE, max_length=7)


def test_the_end_token_inside_a_prompt_ends_nothing() -> None:
    dialogue = Prompt("d", (Message("user", "oak"), Message("assistant", "elm"), Message("user", "pine")))
    encoded = Encoded(encode_prompt(dialogue, TEMPLATE, room=4, max_length=64), tuple(TEMPLATE.response_ids("red")))
    assert encoded.prompt.count(TEMPLATE.end_id) == 3
    assert len(encoded.response) == 2


def test_responses_without_tokens_are_left_out_and_counted_and_the_pairs_follow() -> None:
    three = RankedGroup(
        prompt("oak"), ("", "red", "blue"), (False, True, True), (Pair(0, 1, 1.0), Pair(2, 1, 0.75), Pair(2, 0, 0.5))
    )
    spaces = RankedGroup(prompt("elm"), ("  ", "red"), (False, True), (Pair(1, 0, 1.0),))
    whole = group("red", "")  # an empty response that ends has its end token
    found, count = without_empty([three, spaces, whole], TEMPLATE)
    assert count == 2
    assert [(item.responses, item.finished, item.pairs) for item in found] == [
        (("red", "blue"), (True, True), (Pair(1, 0, 0.75),)),
        (("red", ""), (True, True), whole.pairs),
    ]
    encode_groups(found, TEMPLATE, max_length=20)


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("template", [None, CHAT])
def test_text_without_a_prompt_is_language_modeling(begins: bool, template: str | None) -> None:
    """Every token but the first is learned, the end too, as with labels that are the ids; no chat template is asked."""
    made = tokenizer(template)
    if begins:
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<system> $A", special_tokens=[("<system>", 5)]
        )
    chosen = Template(made)
    (found,) = encode_demonstrations([Demonstration(Prompt("t", ()), "oak pine red")], chosen, max_length=5)
    ids = [*made("oak pine red").input_ids, chosen.end_id]
    assert [*found.prompt, *found.response] == ids and len(found.prompt) == 1 and len(ids) == 4 + begins
    with pytest.raises(TooLong, match=r"text 't' has [45] tokens and exceeds model.max_length = 3; split it"):
        encode_demonstrations([Demonstration(Prompt("t", ()), "oak pine red")], chosen, max_length=3)
