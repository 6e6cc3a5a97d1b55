"""An offloaded tensor is the same afterwards; one that was changed meanwhile is copied again."""

import pytest
import torch
from torch import Tensor, nn

from triphase.models import offloading
from triphase.models.offloading import Offloaded, places_of


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The transfers, which on one device would be none."""
    made: list[str] = []

    def moved(name: str) -> object:
        def move(values: Tensor, *_: object) -> Tensor:
            made.append(name)
            return values.clone()

        return move

    monkeypatch.setattr(offloading, "to_host", moved("host"))
    monkeypatch.setattr(offloading, "to_device", moved("device"))
    return made


def test_a_frozen_tensor_goes_to_the_host_once_and_a_changed_one_again(copies: list[str]) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).requires_grad_(False)
    names, before = list(module.state_dict()), {name: value.clone() for name, value in module.state_dict().items()}
    offloaded = Offloaded(list(places_of([module])))
    for _ in range(3):
        offloaded.offload()
        offloaded.offload()
        offloaded.reload()
        offloaded.reload()
    count = len(names)
    assert copies.count("host") == count and copies.count("device") == 3 * count
    assert list(module.state_dict()) == names
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert isinstance(module[0].weight, nn.Parameter) and not module[0].weight.requires_grad
    module[0].weight.add_(1.0)
    module[0].bias = nn.Parameter(before["0.bias"] + 2, requires_grad=False)
    offloaded.offload()
    offloaded.reload()
    assert copies.count("host") == count + 2
    assert torch.equal(module[0].weight, before["0.weight"] + 1) and torch.equal(module[0].bias, before["0.bias"] + 2)


def test_what_memory_did_not_suffice_for_follows_at_the_next_call(
    copies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Linear(3, 2).requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    offloaded = Offloaded(list(places_of([module])))
    offloaded.offload()
    move, left = offloading.to_device, iter([True, False])

    def scarce(values: Tensor, device: torch.device) -> Tensor:
        if not next(left, True):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return move(values, device)

    with monkeypatch.context() as patched, pytest.raises(torch.OutOfMemoryError):
        patched.setattr(offloading, "to_device", scarce)
        offloaded.reload()
    offloaded.reload()
    assert copies.count("device") == 2  # each arrived once
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    offloaded.offload()
    offloaded.reload()
    assert copies.count("host") == 2 and copies.count("device") == 4
