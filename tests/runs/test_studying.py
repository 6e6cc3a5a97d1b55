"""`triphase study`: variants over seeds and best of n, resumed after an interruption; its statistics by hand."""

import json
import math
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from tests.runs.small_run import ppo_alone, settings, write_data

from triphase.cli import study
from triphase.cli.main import main
from triphase.errors import SettingsError
from triphase.reports.contents import read_run
from triphase.reports.overoptimization import Bounds, Fit
from triphase.reports.study import Curve, StudyFindings, VariantFindings, _rollouts
from triphase.reports.study_page import headline, peak_text, study_page
from triphase.runs.studying import variants_of
from triphase.settings.loading import load_settings

WORDS = ("--seeds", "2", "--best-of", "4", "--variants", "none,kl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    evaluation = {"gold": "grammar", "samples_per_prompt": 3, "max_prompts": 3}
    chosen = ppo_alone(folder, ppo={"iterations": 2}, variants={"long": {"epochs": 2}}, evaluation=evaluation)
    (folder / "study.yaml").write_text(json.dumps(chosen.model_dump(mode="json")))
    assert main(["study", str(folder / "study.yaml"), *WORDS]) == 0
    return folder / "runs"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs")) / "small"


@pytest.mark.slow
def test_figures_are_over_seeds_and_in_deviations_of_sft_samples(finished: Path) -> None:
    directory = finished / "small-study"
    found = json.loads((directory / "study.json").read_text())
    assert [each["name"] for each in found["variants"]] == ["none", "kl"]
    assert all(each["seeds"] == [0, 1] for each in found["variants"])
    for each in found["variants"]:
        gains, over = [], []
        for seed in (0, 1):
            samples = read_run(directory / f"{each['name']}-seed-{seed}").samples
            first = read_run(directory / f"none-seed-{seed}").samples
            gold = {p: [s.gold or 0 for s in samples if s.policy == p] for p in ("sft", "ppo")}
            unit = float(np.std(gold["sft"]))
            gains.append((np.mean(gold["ppo"]) - np.mean(gold["sft"])) / unit)
            over.append((np.mean(gold["ppo"]) - np.mean([s.gold or 0 for s in first if s.policy == "ppo"])) / unit)
        assert each["gold_gain"]["value"] == pytest.approx(np.mean(gains))
        if each["name"] != "none":
            assert each["gold_over_first"]["value"] == pytest.approx(np.mean(over))
    assert found["variants"][0]["gold_over_first"] is None
    config = (directory / "none-seed-1" / "config.yaml").read_text()
    assert "kl_coefficient: 0.0" in config and "variants: {}" in config


@pytest.mark.slow
def test_best_of_n_is_the_mean_over_all_subsets(finished: Path) -> None:
    directory = finished / "small-study"
    found = json.loads((directory / "study.json").read_text())["best_of_n"]
    assert found["n"] == [1, 2, 4]
    assert found["curve"]["root_kl"] == pytest.approx([math.sqrt(math.log(n) - (n - 1) / n) for n in (1, 2, 4)])
    gains = []
    for seed in (0, 1):
        rows = [
            json.loads(line) for line in (directory / f"none-seed-{seed}" / "best-of-n.jsonl").read_text().splitlines()
        ]
        assert len(rows) == 3 * 4 and all(row["score"] is not None for row in rows)
        by_prompt: dict[str, list[float]] = {}
        for row in rows:
            by_prompt.setdefault(row["prompt_id"], []).append(row["score"])
        unit = float(np.std([row["score"] for row in rows]))
        best = [np.mean([max(two) for two in combinations(group, 2)]) - np.mean(group) for group in by_prompt.values()]
        gains.append(np.mean(best) / unit)
    assert found["proxy_gain"][1]["value"] == pytest.approx(np.mean(gains))


@pytest.mark.slow
def test_a_study_goes_on_where_it_ended(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = run.parent / "small-study"
    before = json.loads((directory / "study.json").read_text())
    shutil.rmtree(directory / "kl-seed-1")
    (directory / "none-seed-0" / "best-of-n.jsonl").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(
            "triphase.runs.comparison_responses.sample_responses", lambda *_, **__: pytest.fail("all is sampled")
        )
        assert main(["study", str(run), *WORDS]) == 0
        assert "none-seed-0" not in capsys.readouterr().err
    assert json.loads((directory / "study.json").read_text()) == before  # the same bytes again
    page = (directory / "study.html").read_text()
    assert "<script" not in page and page.count("<svg") == 2


def test_the_phases_before_ppo_name_no_next_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path)
    chosen = settings(tmp_path)
    monkeypatch.setattr("triphase.cli.deferred.perform", lambda _, steps, begun, **__: begun(tmp_path / "small"))
    monkeypatch.setattr("triphase.cli.steps.print_result", lambda _: pytest.fail("the study goes on"))
    study._begin(chosen, tmp_path / "small")


def test_variants_and_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    chosen = ppo_alone(tmp_path, ppo={"iterations": 1}, variants={"long": {"epochs": 2}})
    run = tmp_path / "study.yaml"
    run.write_text(json.dumps(chosen.model_dump(mode="json")))
    for words, said in (
        (("--variants", "nome"), "--variants nome: there is no such variant; there are none, kl, long; ensembles need"),
        (("--seeds", "0"), "--seeds 0: must lie between"),
        (("--best-of", "0"), "--best-of 0: must lie between"),
        (("--parallel", "0"), "--parallel: 0 is not allowed"),
    ):
        assert main(["study", str(run), *words]) == 2
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs" / "small-study").mkdir(parents=True)
    assert main(["study", str(run)]) == 2
    refused = "small-study already exists and is not a sweep (it has no sweep.json); rename or remove it"
    assert refused in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "runs" / "small").exists()
    built_in = variants_of(settings(tmp_path, variants={"own": {"optimizer": {"learning_rate": 1e-5}}}), None)
    assert [variant.name for variant in built_in] == ["none", "kl", "ensemble", "all"]
    (own,) = variants_of(settings(tmp_path, variants={"own": {"optimizer": {"learning_rate": 1e-5}}}), ["own"])
    assert own.changes == {"ppo.optimizer.learning_rate": "1e-05", "variants": "{}"}
    (residual,) = variants_of(settings(tmp_path), ["length-residual"])
    assert residual.changes["reward.length"] == "residual" and residual.changes["ppo.kl-coefficient"] == "0"
    (rounds,) = variants_of(settings(tmp_path), ["rounds"])
    assert rounds.changes["rounds"] == "3" and rounds.changes["ppo.iterations"] == "1"
    # What the run itself does against reward hacking is left out of the others, and one reward model has no "worst".
    reward = {"length": "residual", "ensemble": {"members": 3, "combine": "worst"}}
    chosen = settings(tmp_path, reward=reward, rounds=2)
    run.write_text(json.dumps(chosen.model_dump(mode="json")))
    found = {
        variant.name: load_settings(run, variant.changes)
        for variant in variants_of(chosen, ["none", "kl", "ensemble", "length-residual", "all"])
    }
    assert [each.reward.length for each in found.values()] == ["free", "free", "free", "residual", "free"]
    assert [each.reward.ensemble.members for each in found.values()] == [1, 1, 4, 1, 4]
    assert {each.rounds for each in found.values()} == {1}
    taken = settings(tmp_path, reward={"from": str(tmp_path)}, labeling={"source": "none"})
    assert [variant.name for variant in variants_of(taken, None)] == ["none", "kl"]
    with pytest.raises(SettingsError, match=r"there are none, kl; reward\.from takes the reward model as it is"):
        variants_of(taken, ["ensemble"])


def test_the_curve_of_rounds_goes_through_all_of_them(tmp_path: Path) -> None:
    last = tmp_path / "r" / "rounds" / "3"
    for place, iterations in ((tmp_path / "r", 2), (last.parent / "2", 3), (last, 1)):
        (place / "ppo").mkdir(parents=True)
        rows = [
            {"iteration": n, "prompt_id": p, "score": 1.0, "reference_kl": 0.5, "gold": None}
            for n in range(iterations)
            for p in "ab"
        ]
        (place / "ppo" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = _rollouts(last)
    assert found is not None and found[0].iteration.tolist() == [n for n in range(6) for _ in "ab"]
    alone = _rollouts(tmp_path / "r")
    assert alone is not None and alone[0].iteration.tolist() == [0, 0, 1, 1]


def test_what_is_said_of_a_peak_and_that_all_is_escaped() -> None:
    hostile = "<img src=x> no-kl"
    known = Bounds(1.0, 0.8, None)
    fit = Fit("ppo", known, known, known, Bounds(1.2, 1.0, 1.4), seen=4.0)
    curve = Curve((0.0, 2.0, 4.0), (0.0, 1.0, 2.0), (0.0, 1.0, -0.5))
    variant = VariantFindings(hostile, hostile, (0,), None, None, None, None, None, None, curve, fit)
    found = StudyFindings(hostile, (variant,), None, (hostile,))
    (said,) = headline(found)
    assert said == (
        f"{hostile} may have gone past its peak at √KL 1.00 (0.80 to …): it ended with proxy +2.00 and gold −0.50, of "
        "+1.20 at the peak."
    )
    certain = replace(fit, peak=Bounds(1.0, 0.8, 4.0))
    (said,) = headline(replace(found, variants=(replace(variant, fit=certain),)))
    assert " went past its peak at √KL 1.00 (0.80 to 4.00): " in said
    beyond = replace(fit, peak=Bounds(1.0, 0.8, 4.1))
    (said,) = headline(replace(found, variants=(replace(variant, fit=beyond),)))
    assert " may have gone past its peak " in said
    higher = replace(curve, gold=(0.0, 1.0, 1.2))
    assert headline(replace(found, variants=(replace(variant, curve=higher, fit=certain),))) == []
    page = study_page(found)
    assert "<img" not in page and "&lt;img" in page
    rising = Fit("ppo", known, Bounds(-1.0, None, None), Bounds(None, None, None), known, 4.0)
    assert peak_text(rising) == "not reached up to 4.00"
    assert peak_text(Fit("ppo", known, known, known, known, 0.5)) == "not reached up to 0.50"


def test_gold_that_only_falls_has_no_peak_that_was_not_reached() -> None:
    """A negated reward: whichever sign noise gives β, gold is best at the reference."""
    none, minus = Bounds(None, None, None), Bounds(-0.5, None, None)
    for form, beta in (("ppo", -0.01), ("best-of-n", 0.01), ("best-of-n", -0.01)):
        fit = Fit(form, minus, Bounds(beta, None, None), none, none, seen=4.0)
        assert peak_text(fit) == "none: gold falls"
        curve = Curve((0.0, 2.0, 4.0), (0.0, 1.0, 2.0), (0.0, -1.0, -2.0))
        variant = VariantFindings("none", "", (0,), None, None, None, None, None, None, curve, fit)
        (said,) = headline(StudyFindings("s", (variant,), None, ()))
        assert said == "none has no peak, since its gold fell from the start: it ended with proxy +2.00 and gold −2.00."
