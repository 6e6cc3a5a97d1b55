"""How long records are, in tokens where a tokenizer is at hand, and which pass the model's limit.

Counting tokens takes longer than reading. So the histogram is made of a sample (each record of a power of two, at
most 4,000), and whether a record is too long is first asked of its bytes: no token is shorter than a byte, and only
a record with more bytes than the limit has tokens is counted out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from triphase.records.types import Message

TokenCount = Callable[[Sequence[str]], list[int]]
"""Texts → how many tokens each has."""
MOST_SAMPLED = 4_000
EDGES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_TEMPLATE_TOKENS = 8
"""What a chat template may add to each turn; a bound for deciding which records are counted out."""
_BATCH = 512
_PIECE = 1 << 16


@dataclass(slots=True)
class SourceLengths:
    """The lengths of the records of one source; a comparison is as long as its prompt and its longer answer."""

    limit: int
    count: TokenCount | None
    too_long: int = 0
    sampled: list[int] = field(default_factory=list)
    _seen: int = 0
    _every: int = 1
    _waiting: list[tuple[str, int, bool]] = field(default_factory=list)

    def add(self, messages: Sequence[Message], answers: Sequence[str]) -> None:
        """Take one record into account."""
        wanted = self._seen % self._every == 0
        self._seen += 1
        text = "\n".join(message.content for message in messages)
        if answers:
            text += "\n" + max(answers, key=len)
        extra = _TEMPLATE_TOKENS * (len(messages) + 1)
        # A character has at most four bytes.
        suspect = len(text) * 4 + extra > self.limit and len(text.encode("utf-8", "replace")) + extra > self.limit
        if wanted or suspect:
            self._waiting.append((text, extra, wanted))
            if len(self._waiting) >= _BATCH:
                self.finish()

    def finish(self) -> None:
        """Count what is waiting."""
        texts = [text for text, _, _ in self._waiting]
        found = self._tokens(texts)
        for tokens, (_, extra, wanted) in zip(found, self._waiting, strict=True):
            self.too_long += tokens + extra > self.limit
            if wanted:
                self.sampled.append(tokens)
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
        """The length that a share of the records does not pass; None without records."""
        if not self.sampled:
            return None
        return sorted(self.sampled)[min(len(self.sampled) - 1, int(share * len(self.sampled)))]
