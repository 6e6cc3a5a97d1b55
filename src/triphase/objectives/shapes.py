"""Argument checks of the objectives: shapes, masks, constants, ranges."""

import torch
from torch import Tensor

_NOTE = "_triphase_count"


def require_shapes(**tensors: tuple[Tensor, str]) -> None:
    """Check that each tensor has the dimensions its letters name; the same letter is the same size everywhere.

    Each argument is a pair (tensor, letters): ``require_shapes(values=(values, "B R"), scores=(scores, "B"))``.

    Raises:
        ValueError: a tensor has another number of dimensions, or two sizes of one letter differ.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, (tensor, letters) in tensors.items():
        dimensions = letters.split()
        if tensor.dim() != len(dimensions):
            raise ValueError(f"{name} must have the shape ({', '.join(dimensions)}); it has {tuple(tensor.shape)}")
        for letter, size in zip(dimensions, tensor.shape, strict=True):
            known, first = sizes.setdefault(letter, (size, name))
            if known != size:
                raise ValueError(
                    f"{name} must have the shape ({', '.join(dimensions)}) with {letter} = {known} as in {first}; "
                    f"it has {tuple(tensor.shape)}"
                )


def require_same_shape(**tensors: Tensor) -> None:
    """Check that all tensors have the same shape: for functions that work element by element.

    Raises:
        ValueError: two shapes differ; broadcasting is never intended here.
    """
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{name} must have the shape of {first}, {tuple(reference.shape)}; it has {tuple(tensor.shape)}"
            )


def require_mask(mask: Tensor) -> int:
    """The number of counted elements of a mask, which must be bool and count at least one.

    Raises:
        ValueError: the mask is not bool, or counts nothing: a mean over nothing does not exist.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask must be bool, True where an element counts; it is {mask.dtype}")
    count, version = getattr(mask, _NOTE, (0, None))
    if version != mask._version:
        count = int(mask.sum())
        with_count(mask, count)
    if count == 0:
        raise ValueError(f"the mask of shape {tuple(mask.shape)} selects no element: there is nothing to average")
    return count


def with_count(mask: Tensor, count: int) -> Tensor:
    """The same mask with its count of elements attached, so that nothing synchronizes with its device to count them.

    Changing the mask in place invalidates the count.
    """
    setattr(mask, _NOTE, (count, mask._version))
    return mask


def require_rows(mask: Tensor) -> None:
    """Check that every row of a mask counts at least one element.

    Args:
        mask: (B, R) bool.

    Raises:
        ValueError: the mask is not (B, R) bool, or a row counts nothing; the rows are named.
    """
    if mask.dim() != 2:
        raise ValueError(f"the mask must have the shape (B, R); it has {tuple(mask.shape)}")
    require_mask(mask)
    counted = mask.any(1)
    if not bool(counted.all()):
        rows = torch.nonzero(~counted).flatten().tolist()
        raise ValueError(f"the mask selects no element in row {rows}: every response has at least one token")


def require_response_prefix(mask: Tensor) -> None:
    """Check that every row of a response mask is True on a first part of at least one token and False after it.

    Args:
        mask: (B, R) bool.

    Raises:
        ValueError: a row is empty, starts with padding, or has a hole; the rows are named.
    """
    require_rows(mask)
    broken = ~mask[:, 0] | (mask[:, 1:] & ~mask[:, :-1]).any(1)
    if bool(broken.any()):
        rows = torch.nonzero(broken).flatten().tolist()
        raise ValueError(
            f"the response mask of row {rows} is not a run of True followed by False: "
            "responses are padded on the right, without gaps"
        )


def require_constant(**tensors: Tensor) -> None:
    """Check that no gradient can flow into what the objective holds fixed.

    Raises:
        ValueError: a tensor requires a gradient; the caller forgot ``detach`` or ``no_grad``.
    """
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            raise ValueError(f"{name} must be constant during the update, but requires a gradient: detach it")


def require_positive(**numbers: float) -> None:
    """Check that each number is above 0 (which also refuses NaN).

    Raises:
        ValueError: a number is 0, negative or NaN.
    """
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0; it is {number}")


def require_share(**numbers: float) -> None:
    """Check that each number is in [0, 1].

    Raises:
        ValueError: a number is outside, or NaN.
    """
    for name, number in numbers.items():
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must lie between 0 and 1; it is {number}")
