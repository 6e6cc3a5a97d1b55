"""How similar the responses of a policy have become: one opening for all of them, and few distinct bigrams.

Both are compared with the reference policy on the same held-out prompts, so that similarity due to the task ("Dear
customer") does not count.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from triphase.monitoring.alarm_rules import Limits
from triphase.monitoring.wording import percent
from triphase.reports.interval_wording import is_above
from triphase.reports.intervals import DIFFERENCE, Interval, mean_over_prompts
from triphase.reports.policy_comparison import Sample

COLLAPSED_SHARE, COLLAPSED_RISE = 0.5, 0.2
"""Minimum share of responses with one first word, and the rise over the reference's share that it must exceed."""
_FEWEST_BIGRAMS = 50
_SIGNS = ".,;:!?…\"'“”‘’()[]{}*#_-–—`"
_LONGEST = 24


@dataclass(frozen=True, slots=True)
class Diversity:
    """The diversity of one policy's responses.

    Attributes:
        opening: the most common first word; empty if most responses are empty.
        share: the share of responses that begin with it.
        before: the most common first word of the reference's responses; empty for the reference itself, too.
        share_before: the share of the reference's responses that begin with that; None for the reference itself.
        same_before: the share of the reference's responses that begin with ``opening``.
        rise: ``share`` minus ``share_before``, over prompts.
        same_rise: ``share`` minus ``same_before``, over prompts.
        distinct: distinct over all bigrams of its responses, each cut to the number of words that the reference's
            response to the same prompt and number has too; None if there are none, or for the reference.
        distinct_before: the same of the reference.
        bigrams: the number of bigrams, of each.
    """

    opening: str
    share: float
    before: str
    share_before: float | None
    same_before: float | None
    rise: Interval | None
    same_rise: Interval | None
    distinct: float | None
    distinct_before: float | None
    bigrams: int

    @property
    def has_one_opening(self) -> bool:
        """Whether most responses came to begin alike: significantly more than the reference's, with a word that was
        rarer."""
        return self.share >= COLLAPSED_SHARE and is_above(self.rise, 0.0) and is_above(self.same_rise, COLLAPSED_RISE)

    @property
    def repeats_itself(self) -> bool:
        """Whether distinct bigrams have halved, the limit of the alarm on the same metric."""
        if self.distinct is None or self.distinct_before is None or self.bigrams < _FEWEST_BIGRAMS:
            return False
        return self.distinct < Limits().distinct_share * self.distinct_before

    @property
    def is_collapsed(self) -> bool:
        """Whether the responses have significantly become more alike."""
        return self.has_one_opening or self.repeats_itself

    def opening_text(self) -> str:
        """66 % begin with “friend”."""
        return _begins(self.share, self.opening)

    def before_text(self) -> str:
        """14 % begin with “song”, 3 % with “friend”: of the reference; empty for the reference itself."""
        if self.share_before is None:
            return ""
        same = "" if self.before == self.opening else f", {_begins(self.same_before, self.opening, verb='')}"
        return _begins(self.share_before, self.before) + same


def diversity_of(samples: Sequence[Sample], policy: str, reference: str = "sft", *, seed: int = 0) -> Diversity | None:
    """The diversity of one policy's responses; None if it has none."""
    own = [sample for sample in samples if sample.policy == policy]
    other = [sample for sample in samples if sample.policy == reference] if policy != reference else []
    if not own:
        return None
    opening, share = _most_common(own)
    if not other:
        return Diversity(opening, share, "", None, None, None, None, None, None, 0)
    before, share_before = _most_common(other)
    same_before = sum(first_word(sample.response) == opening for sample in other) / len(other)
    ours, theirs, same = _shares(own, opening), _shares(other, before), _shares(other, opening)
    shared = sorted(ours.keys() & theirs.keys())
    rise, same_rise = (
        mean_over_prompts([ours[prompt] - side[prompt] for prompt in shared], seed=seed, within=DIFFERENCE)
        for side in (theirs, same)
    )
    distinct, distinct_before, bigrams = _distinct(own, other)
    return Diversity(
        opening, share, before, share_before, same_before, rise, same_rise, distinct, distinct_before, bigrams
    )


def first_word(text: str) -> str:
    """The first word in lowercase, without surrounding punctuation; empty if there is none."""
    for word in text.split():
        bare = word.strip(_SIGNS).casefold()
        if bare:
            return bare[:_LONGEST]
    return ""


def _begins(share: float | None, word: str, verb: str = "begin ") -> str:
    return f"{percent(share)} {f'{verb}with “{word}”' if word else 'are empty'}"


def _most_common(samples: Sequence[Sample]) -> tuple[str, float]:
    counts = Counter(first_word(sample.response) for sample in samples)
    opening = min(counts, key=lambda word: (-counts[word], word))
    return opening, counts[opening] / len(samples)


def _shares(samples: Sequence[Sample], opening: str) -> dict[str, float]:
    found: dict[str, list[bool]] = {}
    for sample in samples:
        found.setdefault(sample.prompt_id, []).append(first_word(sample.response) == opening)
    return {prompt: sum(each) / len(each) for prompt, each in found.items()}


def _distinct(first: Sequence[Sample], second: Sequence[Sample]) -> tuple[float | None, float | None, int]:
    """Distinct-2 of both on responses of equal length, and the number of bigrams."""
    sides: tuple[Mapping[tuple[str, int], list[str]], ...] = tuple(
        {(sample.prompt_id, sample.sample): sample.response.lower().split() for sample in side}
        for side in (first, second)
    )
    shared = sorted(sides[0].keys() & sides[1].keys())
    lengths = {key: min(len(side[key]) for side in sides) for key in shared}
    found = [[pair for key in shared for pair in pairwise(side[key][: lengths[key]])] for side in sides]
    count = len(found[0])
    if not count:
        return None, None, 0
    return len(set(found[0])) / count, len(set(found[1])) / count, count
