"""Descriptions of machines for a plan made elsewhere: GPUs by their data sheets, and their number."""

from dataclasses import dataclass

from triphase.errors import SettingsError

_LEAST_GB, _MOST_GB = 1.0, 100_000.0


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of GPU, according to its data sheet.

    Attributes:
        memory: bytes. flops: dense operations per second in bfloat16.
        bandwidth, link: bytes per second from its memory, and to its neighbors in one direction (NVLink, or PCIe).
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    link: float


CARDS = {
    name: Card(name, memory * 1e9, flops * 1e12, bandwidth * 1e9, link * 1e9)
    for name, memory, flops, bandwidth, link in (
        ("l4", 24, 121, 300, 32),
        ("rtx-3090", 24, 71, 936, 32),
        ("rtx-4090", 24, 165, 1008, 32),
        ("a100-40gb", 40, 312, 1555, 300),
        ("l40s", 48, 362, 864, 32),
        ("a100-80gb", 80, 312, 2039, 300),
        ("h100", 80, 989, 3350, 450),
        ("h200", 141, 989, 4800, 450),
        ("b200", 180, 2250, 8000, 900),
        ("mi300x", 192, 1307, 5300, 448),
    )
}


@dataclass(frozen=True, slots=True)
class Machine:
    """This many GPUs of one kind, each with ``memory`` bytes, at ``price`` per hour and GPU if one is given.

    ``assumed``: whether the kind follows from the memory alone.
    """

    card: Card
    gpus: int
    memory: float
    price: float | None = None
    assumed: bool = False


def machine_of(gpus: int, memory: str | None, card: str | None, price: float | None) -> Machine:
    """The machine described on the command line.

    Raises:
        SettingsError: the description is incomplete, or not numeric.
    """
    if gpus < 1:
        raise SettingsError(f"--gpus: {gpus} is not a number of cards; give at least 1")
    if price is not None and not 0 <= price < float("inf"):
        raise SettingsError(f"--price: {price} is not a price per GPU and hour")
    size = None if memory is None else _bytes(memory)
    if card is not None:
        if card.lower() not in CARDS:
            raise SettingsError(
                f"--card: {card!r} is not known; choose one of {', '.join(CARDS)}, or give --memory alone"
            )
        chosen = CARDS[card.lower()]
    elif size is not None:
        # The slowest GPU of the nearest size: the estimated time is then too long rather than too short.
        chosen = min(CARDS.values(), key=lambda each: (abs(each.memory - size), each.flops))
    else:
        raise SettingsError("--gpus: the GPU is not specified; add for example --memory 80GB or --card h100")
    return Machine(chosen, gpus, chosen.memory if size is None else size, price, assumed=card is None)


def _bytes(text: str) -> float:
    number = text.strip().lower().removesuffix("b").removesuffix("g").strip()
    try:
        size = float(number)
    except ValueError:
        size = 0.0
    if not _LEAST_GB <= size <= _MOST_GB:
        raise SettingsError(f"--memory: {text!r} is not a memory size; give gigabytes per GPU, for example 80GB")
    return size * 1e9
