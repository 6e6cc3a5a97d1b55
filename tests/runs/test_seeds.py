"""`triphase run --seeds`: further seeds are branches of the run, and its report takes them together."""

import json
import shutil
from pathlib import Path

import pytest
from tests.runs.small_run import do, ppo_alone, write_data

from triphase.cli.main import main
from triphase.reports.contents import read_run
from triphase.reports.findings import find
from triphase.reports.interval_wording import interval_text, percent_interval
from triphase.reports.policy_comparison import win_rate
from triphase.reports.seeds import find_over_seeds, scored
from triphase.reports.sweep_page import sweep_page
from triphase.runs import pipeline
from triphase.runs.seeds import seeded, varied_by
from triphase.settings.schema import LabelingSettings


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    evaluation = {"gold": "grammar", "samples_per_prompt": 4, "max_prompts": 3}
    do(
        ppo_alone(folder, ppo={"iterations": 2}, variants={"long": {"epochs": 2}}, evaluation=evaluation),
        pipeline.run_all,
    )
    assert main(["run", str(folder / "runs" / "small"), "--seeds", "3"]) == 0
    return folder / "runs"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs")) / "small"


def test_every_figure_is_over_all_seeds(run: Path) -> None:
    seeds = json.loads((run / "summary.json").read_text())["seeds"]
    assert seeds["varied"] == "seed" and seeds["seeds"] == [0, 1, 2]
    runs = [read_run(place) for place in (run, *sorted((run.parent / "small-seeds").glob("seed-*")))]
    assert len(runs) == 3

    def rate(contents: object, policy: str, other: str) -> float:
        gold = [{key: [s.gold for s in contents.samples if (s.policy, s.prompt_id) == (name, key)]  # type: ignore[attr-defined]
                 for key in {s.prompt_id for s in contents.samples}} for name in (policy, other)]  # type: ignore[attr-defined]  # fmt: skip
        found = win_rate(gold[0], gold[1])
        assert found is not None
        return found.value

    for policy in ("ppo", "arm:long"):
        each = [rate(contents, policy, "sft") for contents in runs]
        own = seeds["policies"][policy]
        assert own["gold_win_rate_by_seed"] == pytest.approx(each)
        assert own["gold_win_rate"]["value"] == pytest.approx(sum(each) / 3)
        assert own["gold_win_rate"]["low"] < own["gold_win_rate"]["value"] < own["gold_win_rate"]["high"]
    (between,) = seeds["gold_win_rates_between"]
    assert (between["first"], between["second"]) == ("ppo", "arm:long")
    assert between["value"] == pytest.approx(sum(rate(each, "ppo", "arm:long") for each in runs) / 3)
    assert [each["n"] for each in seeds["best_of_n"]] == [2, 4]
    # the best of all four samples by the score, less their mean, by hand
    gains = [
        max(group)[1] - sum(gold for _, gold in group) / len(group)
        for each in runs
        for group in scored(each.samples).values()
        if len({score for score, _ in group}) == len(group)
    ]
    if len(gains) == 9:
        assert seeds["best_of_n"][1]["gold_gain"]["value"] == pytest.approx(sum(gains) / 9)


def test_a_sweep_over_seeds_has_the_same_intervals(run: Path) -> None:
    directory = run.parent / "small-seeds"
    names = ("seed-1", "seed-2")
    found = find_over_seeds([read_run(directory / name) for name in names], "seed", [1, 2])
    assert found is not None and found.ppo is not None
    page = sweep_page(directory, {name: {"seed": name[-1]} for name in names})
    assert f"<td>{percent_interval(found.ppo.gold_win_rate)}</td>" in page
    assert f"<td>{interval_text(found.ppo.reference_kl)}</td>" in page
    shutil.rmtree(directory / "seed-2" / "evaluation")
    assert " ± " in sweep_page(directory, {name: {"seed": name[-1]} for name in names})


def test_the_headline_and_the_page_are_over_all_seeds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (run / "report.html").read_text()
    assert "Over 3 seeds" in page and "That is the mean of 3 seeds (" in page
    assert page.count('aria-label="Gold score over iterations, mean of all seeds"') == 1
    assert main(["report", str(run)]) == 0 and (run / "report.html").read_text() == page
    capsys.readouterr()
    assert main(["run", str(run), "--seeds", "3"]) == 0  # nothing is left to do
    assert "over 3 seeds" in capsys.readouterr().out


def test_a_seed_that_is_gone_or_other_is_left_out_and_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run.parent / "small-seeds" / "seed-2")
    assert main(["report", str(run)]) == 0
    assert "note: seed-2 is gone, and is left out of the statistics over seeds" in capsys.readouterr().err
    found = find(read_run(run)).seeds
    assert found is not None and found.seeds == (0, 1)
    config = run.parent / "small-seeds" / "seed-1" / "config.yaml"
    config.write_text(config.read_text().replace("iterations: 2", "iterations: 3"))
    contents = read_run(run)
    assert find(contents).seeds is None and any("differs from this run" in gap for gap in contents.gaps)


def test_where_people_rank_the_seed_is_that_of_ppo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    settings = ppo_alone(tmp_path, ppo={"iterations": 1})
    assert varied_by(settings) == "seed"
    assert varied_by(settings.model_copy(update={"labeling": LabelingSettings(source="people")})) == "ppo.seed"
    assert seeded(settings, 2) == {"seed": "2"}
    of_its_own = settings.model_copy(update={"seed": 3, "ppo": settings.ppo.model_copy(update={"seed": 7})})
    assert seeded(of_its_own, 2) == {"seed": "5", "ppo.seed": "9"}  # PPO too draws other numbers with each seed
    ranked = {"labeling": LabelingSettings(source="people")}
    assert seeded(of_its_own.model_copy(update=ranked), 2) == {"ppo.seed": "9"}
    assert seeded(settings.model_copy(update=ranked), 2) == {"ppo.seed": "2"}
    assert main(["run", "x.yaml", "--seeds", "0"]) == 2
    assert "--seeds 0: must lie between 1 and 100" in capsys.readouterr().err
