"""The figures of a study against slow ones: gains, units, what is held against the first variant, and the curves."""

import json
import math
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from tests.reports.synthetic import write_run

from triphase.reports.contents import read_run
from triphase.reports.policy_comparison import Sample
from triphase.reports.study import BEST_OF_N, ROLLOUTS, StudyFindings, StudyRun, find_study
from triphase.reports.study_page import headline, plain_study, write_study

ABOUT = {"none": "no penalty", "kl": "a penalty"}
# (score, gold) of four samples to each of two prompts; the best of two by score is the mean over six pairs.
SCORED = {"p": [(1.0, 5.0), (2.0, 1.0), (3.0, 2.0), (4.0, 9.0)], "q": [(0.0, 1.0), (5.0, 0.0), (7.0, 4.0), (9.0, 3.0)]}


def lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[StudyRun]:
    """Two variants, two seeds; PPO of a seed has two iterations of two responses."""
    found = []
    for number, (variant, seed) in enumerate((variant, seed) for variant in ABOUT for seed in (0, 1)):
        directory = write_run(tmp_path_factory.mktemp(f"{variant}-{seed}"), seed=number)
        rollouts = [(0, "p", 0.0, 1.0, 2.0), (0, "q", 0.0, 3.0, 4.0), (1, "p", 1.0, 4.0, 3.0), (1, "q", 7.0, 6.0, 7.0)]
        names = ("iteration", "prompt_id", "reference_kl", "score", "gold")
        lines(directory / ROLLOUTS, [dict(zip(names, row, strict=True)) for row in rollouts])
        best = [{"prompt_id": p, "score": score, "gold": gold} for p, some in SCORED.items() for score, gold in some]
        lines(directory / BEST_OF_N, best)
        found.append(StudyRun(variant, seed, directory))
    return found


@pytest.fixture(scope="module")
def found(runs: list[StudyRun]) -> StudyFindings:
    return find_study("s", runs, ABOUT)


def samples(run: StudyRun, policy: str) -> list[Sample]:
    return [each for each in read_run(run.directory).samples if each.policy == policy]


def mean(run: StudyRun, policy: str, figure: Callable[[Sample], float | None]) -> float:
    return fmean(figure(each) or 0.0 for each in samples(run, policy))


def test_gains_are_in_deviations_of_the_sft_policys_samples(runs: list[StudyRun], found: StudyFindings) -> None:
    for variant in found.variants:
        own = [run for run in runs if run.variant == variant.name]
        for figure, gain in (
            (lambda each: each.gold, variant.gold_gain),
            (lambda each: each.score, variant.proxy_gain),
        ):
            expected = [
                (mean(run, "ppo", figure) - mean(run, "sft", figure)) / pstdev(map(figure, samples(run, "sft")))
                for run in own
            ]
            assert gain is not None and gain.value == pytest.approx(fmean(expected))
        assert variant.reference_kl is not None and variant.tokens is not None
        assert variant.reference_kl.value == pytest.approx(fmean(mean(r, "ppo", lambda s: s.reference_kl) for r in own))
        assert variant.tokens.value == pytest.approx(fmean(mean(run, "ppo", lambda s: s.tokens) for run in own))


def test_a_variant_is_held_against_the_first_one_seed_by_seed(runs: list[StudyRun], found: StudyFindings) -> None:
    first, second = found.variants
    expected = [
        (mean(own, "ppo", lambda s: s.gold) - mean(base, "ppo", lambda s: s.gold))
        / pstdev(each.gold or 0.0 for each in samples(own, "sft"))
        for base, own in zip(runs[:2], runs[2:], strict=True)
    ]
    assert first.over_first is None
    assert second.over_first is not None and second.over_first.value == pytest.approx(fmean(expected))


def test_curves_are_gains_over_the_first_rollout(runs: list[StudyRun], found: StudyFindings) -> None:
    """Gold rises from 3 to 5 and proxy from 2 to 5, in deviations of each seed's SFT samples, as those of best of n
    are; the mean KL of the second rollout is 4."""
    units, scored = (
        [pstdev(getattr(each, name) or 0.0 for each in samples(run, "sft")) for run in runs[:2]]
        for name in ("gold", "score")
    )
    curve = found.variants[0].curve
    assert curve is not None and curve.gold is not None
    assert curve.root_kl == (0.0, 2.0) and curve.proxy == pytest.approx((0.0, fmean(3 / unit for unit in scored)))
    assert curve.gold == pytest.approx((0.0, fmean(2 / unit for unit in units)))


def test_best_of_n_over_all_subsets(found: StudyFindings) -> None:
    best = found.best_of_n
    assert best is not None and best.sizes == (1, 2, 4) and best.samples == 4 and best.seeds == (0, 1)
    assert best.curve.root_kl == pytest.approx([math.sqrt(math.log(n) - (n - 1) / n) for n in best.sizes])
    for figure, gains in enumerate((best.proxy, best.gold)):
        unit = pstdev(sample[figure] for group in SCORED.values() for sample in group)
        for n, gain in zip(best.sizes, gains, strict=True):
            chosen = [fmean(max(some)[figure] for some in combinations(group, n)) for group in SCORED.values()]
            alone = [fmean(sample[figure] for sample in group) for group in SCORED.values()]
            assert gain.value == pytest.approx((fmean(chosen) - fmean(alone)) / unit)


def test_best_of_n_without_gold_is_judged_by_the_score(
    runs: list[StudyRun], found: StudyFindings, tmp_path: Path
) -> None:
    shutil.copytree(runs[0].directory, tmp_path / "r")
    lines(tmp_path / "r" / BEST_OF_N, [{"prompt_id": p, "score": score, "gold": None}
                                       for p, some in SCORED.items() for score, _ in some])  # fmt: skip
    alone = find_study("s", [StudyRun("none", 0, tmp_path / "r")], ABOUT)
    best, whole = alone.best_of_n, found.best_of_n
    assert best is not None and whole is not None and (best.gold, best.fit, best.curve.gold) == ((), None, None)
    assert best.sizes == whole.sizes and best.curve.proxy == pytest.approx(whole.curve.proxy)
    assert headline(alone)[-1].startswith("Best of 4 without training gains +")
    assert headline(alone)[-1].endswith(" in the score that selects it.")
    assert plain_study(alone)["best_of_n"]["gold_gain"] == []
    page = write_study(tmp_path, alone).read_text()
    assert page.count(">seed 0</td>") == 1 + len(best.sizes[1:])
    assert ">seeds 0, 1</td>" in write_study(tmp_path, found).read_text()
    assert "<td>best of 4</td>" in page and "best of 1 … 4" in page


def test_seeds_without_a_prompt_in_common_have_no_best_of_n(runs: list[StudyRun]) -> None:
    path = runs[0].directory / BEST_OF_N
    text = path.read_text()
    lines(path, [{"prompt_id": "another", "score": 1.0, "gold": 1.0}])
    try:
        assert find_study("s", runs, ABOUT).best_of_n is None
    finally:
        path.write_text(text)


def test_a_seed_without_rollouts_is_left_out_of_the_curves(runs: list[StudyRun]) -> None:
    path = runs[0].directory / ROLLOUTS
    text = path.read_text()
    path.unlink()
    try:
        left = find_study("s", runs, ABOUT)
    finally:
        path.write_text(text)
    unit = pstdev(each.gold or 0.0 for each in samples(runs[1], "sft"))  # of the seed that is left, not of the first
    curve = left.variants[0].curve
    assert curve is not None and curve.gold == pytest.approx((0.0, 2 / unit))
    assert left.notes == ("none, seed 0: ppo/samples.jsonl has no scores; it is left out of the curves",)


def test_seeds_of_different_lengths_are_noted(runs: list[StudyRun]) -> None:
    """The curve ends where the first seed ended, so that what it "ended with" is not the end of the others."""
    path = runs[0].directory / ROLLOUTS
    text = path.read_text()
    path.write_text("".join(line for line in text.splitlines(keepends=True) if json.loads(line)["iteration"] == 0))
    try:
        left = find_study("s", runs, ABOUT)
    finally:
        path.write_text(text)
    curve = left.variants[0].curve
    assert curve is not None and len(curve.root_kl) == 1
    assert left.notes == ("none: the curve has the first 1 of up to 2 iterations, which all seeds have",)


def test_a_variant_of_several_rounds_says_that_its_proxy_changes_hands(
    runs: list[StudyRun], found: StudyFindings, tmp_path: Path
) -> None:
    assert not any("round" in note for note in found.notes)
    first, last = tmp_path / "r", tmp_path / "r" / "rounds" / "2"
    for place in (first, last):
        shutil.copytree(runs[0].directory, place)
    moved = [StudyRun("none", 0, last), *runs[1:]]
    said, short = find_study("s", moved, ABOUT).notes
    assert short == "none: the curve has the first 2 of up to 4 iterations, which all seeds have"
    assert said.startswith("none: each round has its own reward model")
