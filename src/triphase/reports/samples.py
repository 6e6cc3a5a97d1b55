"""Samples side by side: a fixed choice of prompts, so that nobody has picked the best ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from triphase.reports.evaluation import Sample


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One prompt, and the first sample of each policy that answered it, in the order of the policies."""

    prompt: str
    answers: tuple[Sample, ...]


def side_by_side(samples: Sequence[Sample], policies: Sequence[str], count: int) -> list[SideBySide]:
    """The first ``count`` prompts in the order of the SHA-256 sums of their ids, each with every policy's first sample.

    The order depends on the ids alone: neither on what was answered nor on how it was scored.
    """
    first: dict[tuple[str, str], Sample] = {}
    for sample in samples:
        key = (sample.prompt_id, sample.policy)
        if key not in first or sample.sample < first[key].sample:
            first[key] = sample
    prompts = sorted({sample.prompt_id for sample in samples}, key=_digest)[:count]
    return [
        SideBySide(answers[0].prompt, answers)
        for prompt in prompts
        for answers in [tuple(first[prompt, policy] for policy in policies if (prompt, policy) in first)]
    ]


def _digest(prompt_id: str) -> str:
    return hashlib.sha256(prompt_id.encode("utf-8", "surrogatepass")).hexdigest()
