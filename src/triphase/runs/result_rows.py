"""The results of phases as lines of files."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from triphase.phases.rollout_metrics import Excerpt
from triphase.records.mixture import Mixture
from triphase.records.types import Comparison, RankedGroup
from triphase.reports.hard_comparisons import HardComparison, hardest
from triphase.runs.session import Run, as_split


def heldout_lines(
    groups: Sequence[RankedGroup], scores: Sequence[Sequence[float]], votes: Sequence[Comparison]
) -> list[dict[str, Any]]:
    """One line for each vote of one labeler, so that accuracy compares with the agreement of two labelers.

    Votes on responses that were left out of the groups because they have no tokens have none.
    """
    score_of = _score_of(groups, scores)
    return [
        {
            "prompt_id": vote.prompt.id,
            "score_first": score_of[vote.prompt.id, vote.chosen],
            "score_second": score_of[vote.prompt.id, vote.rejected],
            "target": 1.0,
            "words_first": len(vote.chosen.split()),
            "words_second": len(vote.rejected.split()),
        }
        for vote in votes
        if (vote.prompt.id, vote.chosen) in score_of and (vote.prompt.id, vote.rejected) in score_of
    ]


def hard_lines(
    groups: Sequence[RankedGroup], scores: Sequence[Sequence[float]], votes: Sequence[Comparison]
) -> list[dict[str, Any]]:
    """The judgments that the reward model contradicts or cannot decide."""
    score_of = _score_of(groups, scores)
    judged = [
        HardComparison(
            "", vote.prompt.id, vote.prompt.text, vote.chosen, vote.rejected, vote.labeler,
            score_of[vote.prompt.id, vote.chosen] - score_of[vote.prompt.id, vote.rejected],
        )
        for vote in votes
        if (vote.prompt.id, vote.chosen) in score_of and (vote.prompt.id, vote.rejected) in score_of
    ]  # fmt: skip
    return [asdict(each) for each in hardest(judged)]


def _score_of(groups: Sequence[RankedGroup], scores: Sequence[Sequence[float]]) -> dict[tuple[str, str], float]:
    return {
        (group.prompt.id, text): score
        for group, found in zip(groups, scores, strict=True)
        for text, score in zip(group.responses, found, strict=True)
    }


def sample_row(sample: Excerpt) -> dict[str, Any]:
    """A line of `samples.jsonl`."""
    return {
        "prompt_id": sample.prompt.id,
        "prompt": sample.prompt.text,
        "response": sample.response,
        "finished": sample.finished,
        "score": sample.score,
        "gold": sample.gold,
        "reference_kl": sample.reference_kl,
        "tokens": sample.tokens,
        **({"score_parts": dict(sample.score_parts)} if sample.score_parts else {}),
    }


def mixture_figures(mixture: Mixture, order: Sequence[int], run: Run) -> dict[str, Any]:
    """The records seen of each kind; its weight is that of its sources, divided in proportion to their records."""
    weights: defaultdict[str, float] = defaultdict(float)
    sources = (as_split(source, "train") for source in run.data.demonstrations())
    for records, settings in zip(sources, run.settings.data.demonstrations, strict=True):
        for kind, count in Counter(record.kind for record in records).items():
            weights[kind] += settings.weight * count / len(records)
    return {
        "kinds": {
            kind.kind: {
                "records": kind.records,
                "seen": kind.visits,
                "share": kind.share,
                "passes": kind.passes,
                "weight": weights[kind.kind],
            }
            for kind in mixture.report(order).kinds
        }
    }
