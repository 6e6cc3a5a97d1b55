"""The lengths of a run's records, and the microbatches that phases form from them."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from triphase.batches.order import microbatches, permutation
from triphase.footprints.work import Shape


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the records of one kind, or of an evenly spaced sample of them.

    Attributes:
        sampled: (prompt, response …) of each sampled record; a prompt alone has no response yet.
        count: total number of records.
    """

    sampled: Sequence[tuple[int, ...]] = ()
    count: int = 0

    @property
    def prompts(self) -> list[int]:
        """Tokens of the prompts."""
        return [record[0] for record in self.sampled]

    @property
    def scale(self) -> float:
        """Records for each sampled one."""
        return self.count / max(1, len(self.sampled))

    def answered(self, responses: int, tokens: Sequence[int]) -> "Lengths":
        """With this many responses to each prompt, whose lengths are taken from ``tokens`` in turn."""
        turn = itertools.cycle(tokens)
        return Lengths([(record[0], *itertools.islice(turn, responses)) for record in self.sampled], self.count)

    def flat(self) -> "Lengths":
        """Each response in a separate row."""
        rows = [(record[0], response) for record in self.sampled for response in record[1:]]
        return Lengths(rows, round(len(rows) * self.scale))

    def repeated(self, count: int) -> "Lengths":
        """``count`` records, the sampled ones repeatedly, the longest first if there are too many."""
        ordered = sorted(self.sampled, key=sum, reverse=True)
        return Lengths([ordered[place % len(ordered)] for place in range(count)], count)


@dataclass(frozen=True, slots=True)
class Workload:
    """The records of the phases. ``visits`` is the total number of demonstrations that SFT visits."""

    demonstrations: Lengths
    heldout_demonstrations: Lengths
    visits: int
    prompts: Lengths
    heldout_prompts: Lengths
    groups: Lengths


def shapes_of(
    lengths: Lengths,
    *,
    batch_size: int,
    max_tokens: int | None,
    on_card: bool,
    packed: bool = False,
    scored: bool = False,
) -> Iterator[Shape]:
    """The microbatches of one pass over the sampled records.

    Args:
        on_card: on a GPU, whose passes are larger unless ``max_tokens`` says how large.
        packed: the responses of a record share a row.
        scored: counts responses, not their tokens.
    """
    order = permutation(len(lengths.sampled), 0, "plan")
    for start in range(0, len(order), batch_size):
        members = [lengths.sampled[index] for index in order[start : start + batch_size]]
        for group in microbatches([sum(member) for member in members], max_tokens=max_tokens, on_card=on_card):
            chosen = [members[index] for index in group]
            counted = sum(len(member) - 1 if scored else sum(member[1:]) for member in chosen)
            yield Shape(len(chosen), max(sum(member) for member in chosen), max(1, counted), packed)


def largest(shapes: Iterable[Shape]) -> Shape:
    """The microbatch with the most tokens."""
    return max(shapes, key=lambda shape: (shape.tokens, shape.counted))
