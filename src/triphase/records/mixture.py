"""Demonstrations of several sources in one order, each source with its share.

The order is a function of the sources, the weights and the seed alone. With p_s = w_s / Σ w, the visit t = 1, 2, … goes
to the source that is furthest behind its share,

    s_t = argmax_s ( t·p_s − visits of s so far )          (the first of equals)

so that after every t each source is within one visit of t·p_s for two sources, and never far from it for more. Within a
source the visits go through all its records in a shuffled order before any is repeated: pass k of source s is sorted by
SHA-256("seed/s/k/record"). A pass over the mixture has as many visits as there are records in total.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from triphase.records.types import Demonstration


@dataclass(frozen=True, slots=True)
class KindSeen:
    """How much of one kind of data was visited. ``share`` is of all visits; ``passes`` is visits per record."""

    kind: str
    records: int
    visits: int
    share: float
    passes: float


@dataclass(frozen=True, slots=True)
class MixtureReport:
    """The numbers of visits of each kind, in the order of the sources."""

    visits: int
    kinds: tuple[KindSeen, ...]


class Mixture:
    """A weighted mixture of sources of demonstrations. Indices count through all sources, the first source first."""

    def __init__(self, sources: Sequence[Sequence[Demonstration]], weights: Sequence[float], seed: int) -> None:
        if len(sources) != len(weights):
            raise ValueError(f"{len(sources)} sources, but {len(weights)} weights")
        if not sources or not all(sources):
            raise ValueError("a mixture needs at least one source, and each source needs at least one demonstration")
        if not all(weight > 0 for weight in weights):
            raise ValueError(f"weights must be above 0, not {tuple(weights)}")
        self.demonstrations: tuple[Demonstration, ...] = tuple(record for source in sources for record in source)
        self.shares: tuple[float, ...] = tuple(weight / sum(weights) for weight in weights)
        self._sizes = [len(source) for source in sources]
        self._starts = [sum(self._sizes[:index]) for index in range(len(sources))]
        self._seed = seed

    def order(self, epochs: float) -> list[int]:
        """The index of the demonstration at each visit; a longer order begins with the shorter one."""
        visits = [0] * len(self._sizes)
        passes: list[list[int]] = [[] for _ in self._sizes]
        order = []
        for visit in range(1, round(epochs * len(self.demonstrations)) + 1):
            source = max(range(len(visits)), key=lambda s: (visit * self.shares[s] - visits[s], -s))
            place = visits[source] % self._sizes[source]
            if place == 0:
                passes[source] = self._shuffled(source, visits[source] // self._sizes[source])
            order.append(self._starts[source] + passes[source][place])
            visits[source] += 1
        return order

    def report(self, order: Sequence[int]) -> MixtureReport:
        """The number of visits of each kind in ``order``."""
        records = Counter(demonstration.kind for demonstration in self.demonstrations)
        seen = Counter(self.demonstrations[index].kind for index in order)
        kinds = tuple(
            KindSeen(kind, count, seen[kind], seen[kind] / len(order) if order else 0.0, seen[kind] / count)
            for kind, count in records.items()
        )
        return MixtureReport(len(order), kinds)

    def _shuffled(self, source: int, number: int) -> list[int]:
        def key(record: int) -> bytes:
            return hashlib.sha256(f"{self._seed}/{source}/{number}/{record}".encode()).digest()

        return sorted(range(self._sizes[source]), key=key)
