"""One answer of a labeler as the store keeps it: the ranking, and everything that was given with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from triphase.records.types import Ranking

Purpose = Literal["label", "gold", "repeat", "adjudication"]
Status = Literal["active", "withdrawn", "skipped", "superseded", "late"]


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A ranking and its circumstances.

    ``purpose``: what the slot was for; only label and adjudication become comparisons. ``status``: active counts;
    withdrawn left with its labeler; skipped has a reason and no places; superseded was corrected by its labeler; late
    came when another labeler had taken the slot. ``strength`` is 1 (slight) to 4 (much better); ``margin`` comes with
    imported data; ``quality`` maps response ids to 1–7, ``ratings`` does so for each criterion. ``rationale`` is the
    reason; ``rewrites`` are responses, by id, as the labeler would have written them. ``campaign`` is empty in the main
    work.
    """

    ranking: Ranking
    purpose: Purpose = "label"
    status: Status = "active"
    assignment_id: int | None = None
    guideline_version: int | None = None
    strength: int | None = None
    margin: float | None = None
    quality: Mapping[str, int] = field(default_factory=dict)
    skip_reason: str | None = None
    ratings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rationale: str = ""
    rewrites: Mapping[str, str] = field(default_factory=dict)
    campaign: str = ""
