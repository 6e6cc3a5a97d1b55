"""The lengths of the texts of records, in tokens if there is a tokenizer.

Counting tokens takes longer than reading, so the histogram is of a sample: every record, every second, every fourth …,
at most 4,000. Which records exceed the model's limit cannot be told from texts alone; `examiner` encodes them for that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from triphase.records.types import Message

TokenCount = Callable[[Sequence[str]], list[int]]
"""Texts → number of tokens of each."""
MOST_SAMPLED = 4_000
EDGES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_BATCH = 512
_PIECE = 1 << 16


@dataclass(slots=True)
class SourceLengths:
    """The lengths of the records of one source; a comparison is as long as its prompt and its longer answer."""

    count: TokenCount | None
    sampled: list[int] = field(default_factory=list)
    _seen: int = 0
    _every: int = 1
    _waiting: list[str] = field(default_factory=list)

    def add(self, messages: Sequence[Message], answers: Sequence[str]) -> None:
        """Add one record."""
        wanted = self._seen % self._every == 0
        self._seen += 1
        if wanted:
            text = "\n".join(message.content for message in messages)
            self._waiting.append("\n".join((text, max(answers, key=len))) if answers else text)
            if len(self._waiting) >= _BATCH:
                self.finish()

    def finish(self) -> None:
        """Count the pending texts."""
        self.sampled += self._tokens(self._waiting)
        self._waiting.clear()
        if len(self.sampled) >= MOST_SAMPLED:
            self.sampled = self.sampled[::2]
            self._every *= 2

    def _tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text. Long texts are counted in pieces, between which Ctrl-C is handled."""
        if self.count is None:
            return [math.ceil(len(text) / 4) for text in texts]
        whole = self.count([text if len(text) <= _PIECE else "" for text in texts])
        return [
            found if len(text) <= _PIECE else sum(self.count([text[start : start + _PIECE]])[0]
                                                  for start in range(0, len(text), _PIECE))
            for text, found in zip(texts, whole, strict=True)
        ]  # fmt: skip

    def histogram(self) -> list[tuple[str, int]]:
        """(range of tokens, records of the sample) for each range that has any."""
        bounds = [0, *EDGES]
        rows = [
            (f"{low + 1}–{high}", sum(low < length <= high for length in self.sampled))
            for low, high in zip(bounds, EDGES, strict=False)
        ]
        rows.append((f"over {EDGES[-1]}", sum(length > EDGES[-1] for length in self.sampled)))
        return [(label, count) for label, count in rows if count]

    def quantile(self, share: float) -> int | None:
        """The length that a share of the records does not exceed; None without records."""
        if not self.sampled:
            return None
        return sorted(self.sampled)[min(len(self.sampled) - 1, int(share * len(self.sampled)))]
