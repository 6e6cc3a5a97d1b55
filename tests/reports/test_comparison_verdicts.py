"""The sentences of a comparison follow its intervals, also where its criteria contradict each other."""

import pytest

from triphase.reports.comparison import ComparisonFindings, CriterionFindings, SideFindings
from triphase.reports.comparison_page import comparison_page
from triphase.reports.comparison_verdicts import verdicts_of
from triphase.reports.intervals import Interval

ASKED = {"prompts": 40, "prompts_from": "a file", "samples": 1, "temperature": 1.0, "max_response_tokens": 8}


def found(**rates: tuple[float, float | None, float | None] | None) -> ComparisonFindings:
    """Two policies; for each criterion, how often the FIRST beats the second, with bounds."""
    sides = tuple(SideFindings(name, "", 40, 40, None, None, None, None) for name in ("sft", "<b>ppo</b>"))
    criteria = tuple(
        CriterionFindings(name, "", {}, {("sft", "<b>ppo</b>"): Interval(*rate, 40)} if rate else {}, {}, {}, 0)
        for name, rate in rates.items()
    )
    return ComparisonFindings(sides, criteria, (), ASKED)


@pytest.mark.parametrize(
    ("rates", "tone", "words"),
    [
        ({"gold": (0.25, 0.15, 0.35)}, "good", "better by gold, 75 % (65 to 85 %)."),
        ({"gold": (0.75, 0.6, 0.9)}, "bad", "worse by gold, 25 % (10 to 40 %)."),
        ({"gold": (0.45, 0.35, 0.55)}, "open", "not clearly better or worse by gold, 55 % (45 to 65 %)."),
        ({"gold": (0.0, None, None)}, "open", "not clearly better or worse by gold, 100 % of one prompt."),
        ({"gold": None, "reward": (0.2, 0.1, 0.3)}, "good", "better by reward"),
        ({"reward": (0.2, 0.1, 0.3), "length": (0.5, 0.4, 0.6)}, "good", "; not clearly better or worse by length"),
        ({"reward": (0.1, 0.05, 0.2), "gold": (0.9, 0.8, 0.95)}, "open", "The criteria contradict each other"),
        (
            {"a": (0.1, 0.0, 0.2), "b": (0.1, 0.0, 0.2), "c": (0.1, 0.0, 0.2)},
            "good",
            "by b, 90 % (80 to 100 %), and by c, 90 %",
        ),
    ],
)
def test_the_sentence_says_what_the_intervals_support(rates: dict, tone: str, words: str) -> None:
    [verdict] = verdicts_of(found(**rates))
    assert (verdict.tone, words in verdict.sentence) == (tone, True), verdict
    assert verdict.sentence.startswith("<b>ppo</b> against sft: ")


def test_what_nobody_has_judged_has_no_verdict() -> None:
    assert verdicts_of(found(gold=None)) == []
    assert 'aria-label="Verdict"' not in comparison_page("c", found(gold=None), [])


def test_the_page_begins_with_the_verdict_and_escapes_names() -> None:
    page = comparison_page("c", found(gold=(0.25, 0.15, 0.35)), [])
    assert page.index("better by gold") < page.index('id="sides"')
    assert "&lt;b&gt;ppo&lt;/b&gt; against sft" in page and 'verdict good" aria-label="Verdict"' in page
