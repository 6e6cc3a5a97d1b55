"""Right padding, and the masks and positions that follow from lengths, never from ids."""

import pytest
import torch
from tests.small import samples

from triphase.batches.padding import pad_batch
from triphase.tokens.encoding import Encoded

# The end token 1 stands inside the prompt, inside a response, and is the padding too.
BATCH = [Encoded((5, 1, 6), (7, 1)), Encoded((8,), (1, 9, 1)), Encoded((1, 1), (1,))]


def test_prompt_response_padding_from_left_to_right() -> None:
    batch = pad_batch(BATCH, pad_id=0)
    assert batch.input_ids.tolist() == [[5, 1, 6, 7, 1], [8, 1, 9, 1, 0], [1, 1, 1, 0, 0]]
    assert batch.prompt_lengths.tolist() == [3, 1, 2]
    assert batch.response_lengths.tolist() == [2, 3, 1]
    assert batch.lengths.tolist() == [5, 4, 3]
    assert batch.input_ids.dtype == torch.long


def test_masks_count_real_tokens_whatever_the_padding_id() -> None:
    for pad_id in (0, 1, 9):
        batch = pad_batch(BATCH, pad_id=pad_id)
        assert batch.attention_mask.tolist() == [[True] * 5, [True] * 4 + [False], [True] * 3 + [False] * 2]
        assert batch.response_mask.tolist() == [[True, True, False], [True] * 3, [True, False, False]]


def test_response_positions_follow_the_prompt_and_pads_repeat_the_last_token() -> None:
    batch = pad_batch(BATCH, pad_id=0)
    assert batch.response_positions.tolist() == [[3, 4, 4], [1, 2, 3], [2, 2, 2]]
    assert batch.responses.tolist() == [[7, 1, 1], [1, 9, 1], [1, 1, 1]]
    assert batch.targets.tolist() == batch.responses[batch.response_mask].tolist()


def test_each_response_is_read_back_from_the_batch() -> None:
    made = samples(20)
    batch = pad_batch(made, pad_id=0)
    for row, sample in enumerate(made):
        assert tuple(batch.responses[row][batch.response_mask[row]].tolist()) == sample.response
        assert tuple(batch.input_ids[row][batch.attention_mask[row]].tolist()) == sample.prompt + sample.response


@pytest.mark.parametrize("chosen", [[2, 0], [2], [1, 1, 2]])
def test_rows_are_the_chosen_ones_cut_to_their_longest(chosen: list[int]) -> None:
    part, alone = pad_batch(BATCH, pad_id=0).rows(torch.tensor(chosen)), pad_batch([BATCH[n] for n in chosen], pad_id=0)
    assert torch.equal(part.input_ids, alone.input_ids)
    assert torch.equal(part.response_mask, alone.response_mask)
    assert torch.equal(part.response_positions, alone.response_positions)
