"""When a reward model counts as better than chance, and than length alone."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from triphase.reports.chance_check import FEWEST_PROMPTS, chance_verdict
from triphase.reports.reward_quality import ScoredPair


def comparisons(prompts: int, right: float, longer: float, *, each: int = 1, alike: bool = False) -> list[ScoredPair]:
    """``prompts`` × ``each`` comparisons, exactly so many of them right; "longer wins" is right independently of that,
    or (``alike``) in the same comparisons first."""
    draw = random.Random(0)
    count = prompts * each
    sides = [number < round(right * count) for number in range(count)]
    lengths = [number < round(longer * count) for number in range(count)]
    if not alike:
        draw.shuffle(sides)
        draw.shuffle(lengths)
    return [
        ScoredPair(f"p{number % prompts}", 1.0 if good else 0.0, 0.0 if good else 1.0, 1.0, 9 if long else 3, 6)
        for number, (good, long) in enumerate(zip(sides, lengths, strict=True))
    ]


def outcome(pairs: Sequence[ScoredPair]) -> str:
    found = chance_verdict(pairs)
    assert found is not None
    assert found.is_better == (found.outcome == "better") == (found.remedy == "")
    assert "{" not in found.finding and found.finding.endswith(".")
    return found.outcome


@pytest.mark.parametrize(
    ("prompts", "right", "longer", "expected"),
    [
        (200, 0.63, 0.45, "better"),
        (200, 0.55, 0.45, "chance"),  # 48 to 62 %
        (2000, 0.55, 0.45, "better"),
        (200, 0.39, 0.50, "worse than chance"),
        (200, 0.50, 0.70, "chance"),
        (200, 0.68, 0.70, "length"),
        (200, 0.70, 0.68, "length"),
        (200, 0.85, 0.65, "better"),
        (200, 0.62, 0.55, "better"),  # "longer wins" is not shown to be a rule at all
        (FEWEST_PROMPTS - 1, 1.0, 0.0, "too few"),
        (FEWEST_PROMPTS, 1.0, 0.0, "better"),
    ],
)
def test_outcome(prompts: int, right: float, longer: float, expected: str) -> None:
    assert outcome(comparisons(prompts, right, longer)) == expected


def test_a_model_that_only_counts_words_is_told_whatever_its_accuracy() -> None:
    pairs = [replace(pair, score_first=pair.words_first, score_second=pair.words_second)
             for pair in comparisons(300, 0.9, 0.9)]  # fmt: skip
    found = chance_verdict(pairs)
    assert found and found.outcome == "length" and found.advantage.value == 0
    assert "90 %" in found.finding and "+0 (−1 to +1) points" in found.finding


def test_many_comparisons_of_few_prompts_are_not_many_prompts() -> None:
    """The bootstrap draws prompts: ten prompts, four of them wholly wrong, show nothing."""
    pairs = comparisons(10, 0.6, 0.5, each=100)
    together = [replace(pair, prompt_id=f"p{number // 100}") for number, pair in enumerate(sorted(
        pairs, key=lambda pair: pair.score_second))]  # fmt: skip
    assert outcome(pairs) == "better" and outcome(together) == "chance"


def test_a_constant_score_is_chance() -> None:
    assert outcome([ScoredPair(str(number), 1.0, 1.0, 1.0, 5, 4) for number in range(50)]) == "chance"


def test_nothing_decided_nothing_said() -> None:
    assert chance_verdict([]) is None
    assert chance_verdict([ScoredPair("a", 1.0, 0.0, 0.5, 3, 4)] * 20) is None


def test_exchanged_sides_change_nothing_and_reversed_labels_are_worse_than_chance() -> None:
    pairs = comparisons(200, 0.7, 0.5)
    turned = [
        ScoredPair(p.prompt_id, p.score_second, p.score_first, 1 - p.target, p.words_second, p.words_first)
        for p in pairs
    ]
    assert chance_verdict(pairs) == chance_verdict(turned)
    reversed_labels = chance_verdict([replace(pair, target=1 - pair.target) for pair in pairs])
    assert reversed_labels and reversed_labels.outcome == "worse than chance"
    assert "swapped" in reversed_labels.remedy


def test_false_alarms_and_false_passes_are_rare() -> None:
    """Of coins, about 2.5 % pass as better; of models that are right in 70 %, nearly none is stopped."""
    draw = random.Random(1)

    def passes(chance: float) -> int:
        found = 0
        for _ in range(60):
            pairs = [ScoredPair(str(n), float(draw.random() < chance), 0.5, 1.0, draw.randrange(9), 4)
                     for n in range(150)]  # fmt: skip
            found += outcome(pairs) == "better"
        return found

    assert passes(0.5) <= 5
    assert passes(0.7) >= 58
