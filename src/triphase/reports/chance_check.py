"""Is the reward model better than chance, and than "the longer response wins"? Otherwise PPO optimizes noise.

The only test of it: `run` applies it before PPO, and the report states its result first.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from triphase.monitoring.wording import percent
from triphase.reports.intervals import DIFFERENCE, Interval, ratio_over_prompts
from triphase.reports.reward_quality import ScoredPair, accuracy, is_right, longer_wins

FEWEST_PROMPTS = 6
"""With fewer nothing is shown with 95 % confidence: five coins agree by chance in 2·½⁵ = 6 % of all cases."""

Outcome = Literal["better", "too few", "worse than chance", "chance", "length"]


@dataclass(frozen=True, slots=True)
class ChanceVerdict:
    """The result of held-out comparisons for a reward model.

    Attributes:
        outcome: "better" is the only good one; the others say what it is not better than.
        accuracy: share of comparisons that its scores order as the labelers did.
        longer_wins: the same share for "the longer response is preferred".
        advantage: accuracy minus that share, on the same comparisons.
        finding: one sentence with the numbers.
        remedy: what to do about it; empty if it is better.
    """

    outcome: Outcome
    accuracy: Interval
    longer_wins: Interval
    advantage: Interval
    finding: str
    remedy: str

    @property
    def headline(self) -> str:
        """The finding without its numbers."""
        return {
            "better": "The reward model is better than chance",
            "too few": "Whether the reward model is better than chance is unknown",
            "worse than chance": "The reward model is worse than chance",
            "chance": "The reward model is no better than chance",
            "length": "The reward model is no better than preferring the longer response",
        }[self.outcome]

    @property
    def is_better(self) -> bool:
        """Whether the reward model is shown to be better than chance and than length alone."""
        return self.outcome == "better"


def chance_verdict(pairs: Sequence[ScoredPair], *, seed: int = 0) -> ChanceVerdict | None:
    """The verdict on held-out comparisons; None if none has a preferred side, so that nothing can be said.

    Better than chance: the 95 % interval of the accuracy (bootstrap over prompts) is above ½. If "longer wins" is above
    ½ in the same sense, the reward model must beat that baseline too: the interval of the difference, paired by prompt,
    is above 0. A "longer wins" that is no better than chance is no further baseline.
    """
    right, long = accuracy(pairs, seed=seed), longer_wins(pairs, seed=seed)
    advantage = _advantage(pairs, seed)
    if right is None or long is None or advantage is None:
        return None
    outcome = _outcome(right, long, advantage)
    finding, remedy = _FINDINGS[outcome]
    shown = finding.format(right=_shown(right), long=_shown(long), ahead=_points(advantage), prompts=right.prompts)
    return ChanceVerdict(outcome, right, long, advantage, shown, remedy)


def _outcome(right: Interval, long: Interval, advantage: Interval) -> Outcome:
    if right.prompts < FEWEST_PROMPTS:
        return "too few"
    if right.high is not None and right.high < 0.5:
        return "worse than chance"
    if not _above(right, 0.5):
        return "chance"
    return "length" if _above(long, 0.5) and not _above(advantage, 0.0) else "better"


def _above(interval: Interval, level: float) -> bool:
    return interval.low is not None and interval.low > level


def _advantage(pairs: Sequence[ScoredPair], seed: int) -> Interval | None:
    gained: defaultdict[str, float] = defaultdict(float)
    counted: defaultdict[str, int] = defaultdict(int)
    for pair in pairs:
        if pair.target != 0.5:
            scores, words = pair.score_first - pair.score_second, pair.words_first - pair.words_second
            gained[pair.prompt_id] += is_right(scores, pair.target) - is_right(words, pair.target)
            counted[pair.prompt_id] += 1
    prompts = sorted(counted)
    sums, counts = [gained[key] for key in prompts], [counted[key] for key in prompts]
    return ratio_over_prompts(sums, counts, seed=seed, within=DIFFERENCE)


def _shown(interval: Interval) -> str:
    """62 % (95 % interval 55 to 69 %)."""
    value = percent(interval.value)
    if interval.low is None or interval.high is None:
        return value
    return f"{value} (95 % interval {100 * interval.low:.0f} to {100 * interval.high:.0f} %)"


def _points(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{100 * interval.value:+.0f}".replace("-", "−")
    return f"{100 * interval.value:+.0f} ({100 * interval.low:+.0f} to {100 * interval.high:+.0f})".replace("-", "−")


_MORE = "rank more prompts, look at the labelers' agreement, or train longer (reward.epochs)."
_FINDINGS: dict[Outcome, tuple[str, str]] = {
    "better": ("The reward model is better than chance: correct on {right} of the held-out judgments.", ""),
    "too few": (
        "Whether the reward model is better than chance is unknown: it was correct on {right}, on {prompts} held-out "
        f"prompt(s) with a preference; at least {FEWEST_PROMPTS} are needed.",
        "rank more held-out prompts, or raise data.heldout_share.",
    ),
    "worse than chance": (
        "The reward model is worse than chance: correct on {right} of the held-out judgments.",
        "check whether chosen and rejected are swapped in the data; then " + _MORE,
    ),
    "chance": (
        "The reward model is no better than chance: correct on {right} of the held-out judgments; chance is 50 %.",
        _MORE,
    ),
    "length": (
        "The reward model is no better than preferring the longer response: correct on {right} of the held-out "
        'judgments, "longer wins" on {long}; the difference is {ahead} points.',
        "rank more pairs of similar length, so that length alone does not win; then train the reward model again.",
    ),
}
