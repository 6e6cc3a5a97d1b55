"""The arguments of `triphase compare`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """Policies by name, and how to compare them; None means the value of the first run among them."""

    sides: Sequence[str]
    prompts: str | None
    by: Sequence[str] | None
    to: Path | None
    samples: int | None
    max_prompts: int | None
    max_tokens: int | None
    temperature: float | None
    seed: int
