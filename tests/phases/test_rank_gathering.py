"""What each rank has computed for its own samples is gathered in the order of the samples."""

from collections.abc import Sequence

import torch
from torch import Tensor

from triphase.phases.rank_gathering import gathered
from triphase.training.distributed.types import ALONE, Strategy


class OneOfTwo(Strategy):
    """The first of two ranks; the other has computed the rows of index 1."""

    world = 2

    def __init__(self, theirs: Tensor) -> None:
        self._theirs = theirs

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        for each in tensors:
            each.add_(self._theirs)


def test_two_ranks_fill_one_another_s_rows() -> None:
    other = OneOfTwo(torch.tensor([[0.0], [0.0], [5.0], [0.0]]))
    found = gathered(other, {0: torch.tensor([1.0, 2.0]), 2: torch.tensor([7.0])}, (2, 1, 1))
    assert [each.tolist() for each in found] == [[1.0, 2.0], [5.0], [7.0]]
    wide = OneOfTwo(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    rows = gathered(wide, {0: torch.tensor([[1.0, 2.0]])}, (1, 1), width=2)
    assert [each.tolist() for each in rows] == [[[1.0, 2.0]], [[3.0, 4.0]]]


def test_a_process_alone_has_all_of_its_own_as_they_are() -> None:
    found = {1: torch.tensor([2.0], requires_grad=True), 0: torch.tensor([1.0])}
    first, second = gathered(ALONE, found, (1, 1))
    assert first is found[0] and second is found[1]
