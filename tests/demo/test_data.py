"""The shipped data of the demo: complete, clean, varied, and nothing held out is seen in training."""

import json
import re
from collections import Counter
from importlib.resources import files

import pytest

from triphase.demo.gold import off_topic, subject_words, warm_gold

KINDS = {"instruction": 55, "domain": 110, "safety": 25}
"""The least number of demonstrations of each kind."""


def lines(name: str) -> list[dict[str, str]]:
    text = files("triphase.demo").joinpath("data", name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


DEMONSTRATIONS = [row for kind in ("domain", "instruction", "safety") for row in lines(f"{kind}.jsonl")]
PROMPTS = lines("prompts.jsonl")
TRAIN = [row["prompt"] for row in PROMPTS if row["split"] == "train"]
HELDOUT = [row["prompt"] for row in PROMPTS if row["split"] == "heldout"]
DOMAIN = [row for row in DEMONSTRATIONS if row["kind"] == "domain"]


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def opening(text: str, words: int) -> str:
    return " ".join(plain(text).split()[:words])


def test_every_line_has_the_same_fields() -> None:
    assert {tuple(row) for row in DEMONSTRATIONS} == {("prompt", "completion", "kind")}
    assert {tuple(row) for row in PROMPTS} == {("id", "prompt", "split")}


def test_kinds_and_splits_are_large_enough() -> None:
    counted = Counter(row["kind"] for row in DEMONSTRATIONS)
    assert counted.keys() == KINDS.keys()
    assert all(counted[kind] >= least for kind, least in KINDS.items())
    assert Counter(row["split"] for row in PROMPTS) == {"train": 160, "heldout": 40}


def test_ids_count_up() -> None:
    assert [row["id"] for row in PROMPTS] == [f"p{number:03d}" for number in range(1, 201)]


def test_texts_are_clean() -> None:
    for text in [row["prompt"] for row in PROMPTS + DEMONSTRATIONS] + [row["completion"] for row in DEMONSTRATIONS]:
        assert text == text.strip()
        assert text.isascii() and text.isprintable(), text
        assert "  " not in text
        assert "{" not in text and "<" not in text, text


def test_prompts_and_completions_start_and_end_as_sentences_do() -> None:
    for row in PROMPTS + DOMAIN:
        assert row["prompt"][0].isupper() and row["prompt"][-1] in ".?", row["prompt"]
    for row in DEMONSTRATIONS:
        assert re.match(r'"?[A-Z0-9]', row["completion"]) and row["completion"][-1] in ".?", row["completion"]


def test_nothing_is_too_long() -> None:
    for row in DEMONSTRATIONS:
        assert len(row["completion"].split()) <= 22, row["completion"]
        assert len(row["completion"]) <= 125, row["completion"]
    for row in PROMPTS + DEMONSTRATIONS:
        assert len(row["prompt"].split()) <= 20, row["prompt"]


def test_nothing_comes_twice() -> None:
    prompts = [plain(row["prompt"]) for row in PROMPTS + DEMONSTRATIONS]
    assert len(set(prompts)) == len(prompts)
    completions = [plain(row["completion"]) for row in DEMONSTRATIONS]
    assert len(set(completions)) == len(completions)


def test_no_two_prompts_share_most_of_their_words() -> None:
    bags = [set(plain(row["prompt"]).split()) for row in PROMPTS]
    for i, first in enumerate(bags):
        for second in bags[:i]:
            assert len(first & second) / len(first | second) < 0.75, (first, second)


@pytest.mark.parametrize(("words", "most"), [(5, 8), (4, 12), (2, 20), (1, 30)])
def test_prompts_open_in_many_ways(words: int, most: int) -> None:
    shared = Counter(opening(row["prompt"], words) for row in PROMPTS).most_common(1)
    assert shared[0][1] <= most, shared


def test_prompts_follow_at_least_fifteen_patterns() -> None:
    common = [start for start, count in Counter(opening(row["prompt"], 1) for row in PROMPTS).items() if count >= 3]
    assert len(common) >= 15


def test_completions_open_in_many_ways() -> None:
    for kind in KINDS:
        openings = Counter(opening(row["completion"], 2) for row in DEMONSTRATIONS if row["kind"] == kind)
        assert openings.most_common(1)[0][1] <= 8, openings.most_common(3)


def test_every_prompt_has_a_subject() -> None:
    assert [row["prompt"] for row in PROMPTS + DOMAIN if not subject_words(row["prompt"])] == []


def test_a_heldout_prompt_has_a_subject_of_its_own() -> None:
    seen = frozenset().union(*(subject_words(prompt) for prompt in TRAIN))
    shown = frozenset().union(*(subject_words(row["prompt"]) for row in DOMAIN))
    for prompt in HELDOUT:
        assert subject_words(prompt) - seen - shown, prompt


def test_domain_demonstrations_keep_to_their_subject() -> None:
    assert [row["prompt"] for row in DOMAIN if off_topic(row["prompt"], row["completion"])] == []


def test_domain_demonstrations_spread_from_plain_to_warm_and_leave_room() -> None:
    scores = [warm_gold(row["prompt"], row["completion"], True) for row in DOMAIN]
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
    assert -1.0 < mean < 0.9
    assert spread > 0.4
    assert sum(score < 0.3 for score in scores) > len(scores) // 5
    assert sum(score > 0.5 for score in scores) > len(scores) // 20


def test_refusals_do_not_scold_in_one_voice() -> None:
    refusals = [row["completion"] for row in DEMONSTRATIONS if row["kind"] == "safety"]
    assert sum("I will not" in text or "I cannot" in text for text in refusals) <= len(refusals) // 5
