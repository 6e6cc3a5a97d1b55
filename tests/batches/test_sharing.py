"""A ranked group in one row: where its tokens stand and whom they see, by hand."""

import dataclasses

import torch

from triphase.batches.sharing import pad_groups
from triphase.tokens.encoding import EncodedGroup

GROUPS = [EncodedGroup((5, 6), ((7, 1), (8,))), EncodedGroup((9,), ((1,), (7, 8)))]


def test_prompt_then_responses_then_padding() -> None:
    batch = pad_groups(GROUPS, pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 7, 1, 8], [9, 1, 7, 8, 0]]
    assert batch.layout.positions.tolist()[0] == [0, 1, 2, 3, 2]
    assert batch.layout.positions.tolist()[1][:4] == [0, 1, 1, 2]


def test_the_last_token_of_each_response_in_order() -> None:
    rows, places = pad_groups(GROUPS, pad_id=0).last_tokens
    assert list(zip(rows.tolist(), places.tolist(), strict=True)) == [(0, 3), (0, 4), (1, 1), (1, 3)]


def test_a_response_sees_the_prompt_and_itself() -> None:
    attention = pad_groups(GROUPS, pad_id=0).layout.attention
    assert attention.shape == (2, 1, 5, 5) and attention.dtype == torch.bool
    assert attention[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert attention[1, 0].int().tolist()[3] == [1, 0, 1, 1, 0]
    assert attention[1, 0, 4].int().tolist() == [0, 0, 0, 0, 1]  # padding sees itself, so no row is empty


def test_each_response_token_is_predicted_by_the_one_before_it_and_the_first_by_the_prompts_last() -> None:
    batch = pad_groups(GROUPS, pad_id=0)
    assert batch.lengths.tolist() == [5, 4]
    assert batch.response_mask.tolist() == [[True, True], [True, False], [True, False], [True, True]]
    assert batch.targets.tolist() == batch.responses[batch.response_mask].tolist() == [7, 1, 8, 1, 7, 8]
    rows, places = batch.predicting_tokens
    assert list(zip(rows.tolist(), places.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 1), (1, 0), (1, 0), (1, 2)]


def test_chosen_rows_are_a_batch_of_their_own() -> None:
    for chosen in ([1], [1, 0], [0, 1]):
        part, alone = (
            pad_groups(GROUPS, pad_id=0).rows(torch.tensor(chosen)),
            pad_groups([GROUPS[row] for row in chosen], pad_id=0),
        )
        for field in dataclasses.fields(part):
            assert torch.equal(getattr(part, field.name), getattr(alone, field.name)), field.name
