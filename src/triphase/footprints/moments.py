"""A phase's needs at each of its moments, by part, and its computations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from triphase.footprints.work import Shape
from triphase.models.tracing import Traced

PROCESS, BASE, ADAPTERS, HEADS = "process", "base weights", "adapters", "heads"
GRADIENTS, MOMENTS, TRUNK = "gradients", "optimizer moments", "kept trunk states"
ACTIVATIONS, CACHE, CHUNK, TEMPORARY = "activations", "KV cache", "logits chunk", "temporaries"
ALLOCATOR, KERNELS = "held by the allocator", "compiled products"
SERVERS = "rollout servers"
PACKED = "packed weights"
KEPT_ROWS = "rows kept for sampling"
PARTS = (
    *(PROCESS, BASE, ADAPTERS, HEADS, GRADIENTS, MOMENTS, TRUNK),
    *(ACTIVATIONS, CACHE, CHUNK, TEMPORARY, ALLOCATOR, KERNELS, PACKED, KEPT_ROWS, SERVERS),
)


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes by part at one moment of a phase. ``shape`` is its microbatch, or the batch that is sampled."""

    name: str
    parts: Mapping[str, float]
    shape: Shape

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return sum(self.parts.values())


@dataclass(slots=True)
class Footprint:
    """One phase: its moments, and its computations by kind (``training``, ``forward``, ``decoding``).

    Attributes:
        flops: floating-point operations.
        tokens: processed tokens, counted once for each pass over them.
        passes: microbatches; for ``decoding``, steps of a whole batch.
        by_servers: whether servers sample, which hold the whole base.
        remedies: (a setting with its new value, the bytes that it saves at the peak).
    """

    phase: str
    moments: list[Moment] = field(default_factory=list)
    flops: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    passes: dict[str, float] = field(default_factory=dict)
    remedies: list[tuple[str, float]] = field(default_factory=list)
    by_servers: bool = False

    @property
    def peak(self) -> Moment:
        """The moment with the highest memory."""
        return max(self.moments, key=lambda moment: moment.total)

    def at_peak(self) -> dict[str, Any]:
        """The peak by part and what to lower, as plain values."""
        return {
            "peak_bytes": self.peak.total,
            "moment": self.peak.name,
            "parts": {part: self.peak.parts.get(part, 0.0) for part in PARTS},
            "remedies": [[setting, saved] for setting, saved in self.remedies],
        }

    def compute(self, kind: str, traced: Traced, shape: Shape, tokens: float) -> None:
        """Add ``tokens`` tokens in microbatches of ``shape``, of which ``traced`` is one."""
        self._add(kind, traced.flops / shape.tokens * tokens, tokens, tokens / shape.tokens)

    def decode(self, step: Traced, rows: int, tokens: float) -> None:
        """Add ``tokens`` sampled tokens, ``rows`` of them by each ``step``."""
        self._add("decoding", step.flops / rows * tokens, tokens, tokens / rows)

    def _add(self, kind: str, flops: float, tokens: float, passes: float) -> None:
        for total, each in ((self.flops, flops), (self.tokens, tokens), (self.passes, passes)):
            total[kind] = total.get(kind, 0.0) + each
