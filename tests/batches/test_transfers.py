"""Transfers to a card use pinned memory and do not block."""

from typing import Any

import pytest
import torch
from torch import Tensor

from triphase.batches.padding import pad_batch
from triphase.batches.sharing import pad_groups
from triphase.batches.transfers import to_device
from triphase.tokens.encoding import Encoded, EncodedGroup


class Noted:
    """What was asked of tensors on their way to a card that is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pinned: list[int] = []
        self.sent: list[tuple[str, int, bool]] = []
        real = Tensor.to

        def pin(values: Tensor) -> Tensor:
            copy = values.clone()
            self.pinned.append(id(copy))
            self._kept.append(copy)
            return copy

        def to(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if args and isinstance(args[0], torch.device):
                self.sent.append((args[0].type, id(values), bool(kwargs.get("non_blocking"))))
                return values
            return real(values, *args, **kwargs)

        self._kept: list[Tensor] = []
        monkeypatch.setattr(Tensor, "pin_memory", pin)
        monkeypatch.setattr(Tensor, "to", to)


def test_values_for_a_card_are_pinned_first_and_none_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted(monkeypatch)
    to_device(torch.arange(3), "cuda")
    assert noted.sent == [("cuda", noted.pinned[0], True)]


@pytest.mark.parametrize("parts", ["rows", "groups"])
def test_all_that_a_batch_sends_is_pinned(parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted(monkeypatch)
    if parts == "rows":
        pad_batch([Encoded((3, 4), (5, 6))], pad_id=0, device="cuda")
    else:
        pad_groups([EncodedGroup((3, 4), ((5,), (6, 7)))], pad_id=0, device="cuda")
    assert noted.sent and [each for _, each, _ in noted.sent] == noted.pinned
    assert all(free for _, _, free in noted.sent)


def test_on_a_processor_nothing_is_copied() -> None:
    values = torch.arange(3)
    assert to_device(values, torch.device("cpu")) is values
