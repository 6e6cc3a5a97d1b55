"""The rule `sentiment`: how positive the words of a response are, by VADER's lexicon and rules.

Hutto and Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text" (ICWSM 2014).
English only. A lexicon does not detect irony, and a policy exploits that.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


def sentiment(responses: Sequence[str], of: str = "compound") -> list[float]:
    """A number from -1 to 1 for each response; 0 for one without a word of the lexicon.

    ``compound``: VADER's own, S/√(S² + 15) for the sum S of the valences, so that it approaches 1 after a few strong
    words.
    ``balance``: the share of positive words minus that of negative ones, in a long response as in a short one.
    """
    if of not in ("compound", "balance"):
        raise ValueError(f"of must be compound or balance, not {of}")
    found = [_analyzer().polarity_scores(text) for text in responses]
    return [float(_balance(each) if of == "balance" else each["compound"]) for each in found]


def _balance(scores: Mapping[str, float]) -> float:
    return scores["pos"] - scores["neg"]


@cache
def _analyzer() -> Any:
    return SentimentIntensityAnalyzer()
