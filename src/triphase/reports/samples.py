"""Samples of several policies, in a fixed order of prompts, so that none is cherry-picked; with sort keys."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triphase.reports.policy_comparison import Sample

MOST_CHARACTERS = 2_000_000
"""Maximum characters of texts on one page; further prompts are left out and counted."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Means of one policy's samples of one prompt; ``gain`` is the score minus that of the reference's samples."""

    score: float | None
    gain: float | None
    length: float
    reference_kl: float | None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One prompt, and the samples of each policy that answered it, in the order of policies and numbers."""

    prompt: str
    samples: tuple[tuple[Sample, ...], ...]
    figures: Mapping[str, Figures]

    @property
    def answers(self) -> tuple[Sample, ...]:
        """The first sample of each policy."""
        return tuple(each[0] for each in self.samples)

    @property
    def further(self) -> int:
        """The number of samples beyond the first ones."""
        return sum(len(each) - 1 for each in self.samples)

    @property
    def keys(self) -> str:
        """The page's sort keys: policy → score, gain, length, KL."""
        return json.dumps(
            {
                policy: [_short(each.score), _short(each.gain), _short(each.length), _short(each.reference_kl)]
                for policy, each in self.figures.items()
            }
        )


def side_by_side(
    samples: Sequence[Sample],
    policies: Sequence[str],
    baselines: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    *,
    most_characters: int = MOST_CHARACTERS,
) -> list[SideBySide]:
    """Prompts in the order of the SHA-256 hashes of their ids, each with all samples, as many as fit on the page.

    The order depends only on the ids: neither on the responses nor on their scores. ``baselines`` are the scores of the
    reference's samples by prompt, for each policy whose scores are compared with others than their own.
    """
    found: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample.prompt_id, sample.policy), []).append(sample)
    chosen, characters = list[SideBySide](), 0
    for prompt in sorted({sample.prompt_id for sample in samples}, key=_digest):
        groups = {policy: found[prompt, policy] for policy in policies if (prompt, policy) in found}
        if not groups:
            continue
        ordered = tuple(tuple(sorted(group, key=lambda sample: sample.sample)) for group in groups.values())
        characters += len(ordered[0][0].prompt) + sum(len(each.response) for group in ordered for each in group)
        if chosen and characters > most_characters:
            break
        reference = [each.score for each in groups.get("sft", ()) if each.score is not None]
        chosen.append(
            SideBySide(
                ordered[0][0].prompt,
                ordered,
                {
                    policy: _figures(group, (baselines or {}).get(policy, {prompt: reference}).get(prompt, ()))
                    for policy, group in groups.items()
                },
            )
        )
    return chosen


def _figures(samples: Sequence[Sample], reference: Sequence[float]) -> Figures:
    scores = [sample.score for sample in samples if sample.score is not None]
    divergences = [sample.reference_kl for sample in samples if sample.reference_kl is not None]
    score, before = _mean(scores), _mean(reference)
    return Figures(
        score=score,
        gain=None if score is None or before is None else score - before,
        length=sum(sample.tokens for sample in samples) / len(samples),
        reference_kl=_mean(divergences),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _digest(prompt_id: str) -> str:
    return hashlib.sha256(prompt_id.encode("utf-8", "surrogatepass")).hexdigest()
