"""`triphase demo --tiny` through the command line: every phase, the report, and what a second start does."""

import json
import re
from pathlib import Path

import pytest

from triphase.cli.main import main
from triphase.training.sealed import find_damage

FAST = ["--ppo.iterations", "25", "--evaluation.samples-per-prompt", "4"]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.resolved import resolved_yaml

    from triphase.demo.configuration import demo_settings

    folder = tmp_path_factory.mktemp("tiny")
    configuration = folder / "tiny.yaml"
    configuration.write_text(resolved_yaml(demo_settings(tiny=True, output=str(folder))))
    assert main(["run", str(configuration), *FAST]) == 0
    return folder / "tiny"


def bytes_of_finals(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.glob("**/final/*")) if path.is_file()}


def test_everything_is_there_and_whole(run_directory: Path) -> None:
    for phase in ("sft", "reward", "ppo", "arms/no-kl"):
        assert find_damage(run_directory / phase / "final") is None
    for name in ("config.yaml", "labels.sqlite", "labelling.json", "evaluation/samples.jsonl", "report.html"):
        assert (run_directory / name).stat().st_size > 0


def test_the_summary_has_its_keys_and_the_policy_learned(run_directory: Path) -> None:
    summary = json.loads((run_directory / "summary.json").read_text())
    assert set(summary) >= {"seconds", "peak_gb", "labelers", "reward_model", "sft", "ppo", "versions", "seed"}
    reward = summary["reward_model"]
    assert set(reward) >= {"accuracy", "accuracy_low", "accuracy_high", "noise_ceiling", "longer_wins", "ece"}
    assert reward["accuracy"] >= 0.85 * reward["noise_ceiling"]
    assert reward["accuracy"] > reward["longer_wins"]
    ppo = summary["ppo"]
    keys = {"gold_mean", "gold_win_rate", "gold_win_rate_low", "gold_win_rate_high", "proxy_gain", "reference_kl"}
    assert set(ppo) >= keys | {"mean_length", "eos_rate"}
    assert ppo["gold_win_rate_low"] > 0.5
    assert ppo["gold_mean"] > summary["sft"]["gold_mean"]
    assert 0.7 <= summary["labelers"]["agreement"] <= 0.77


def test_without_the_penalty_proxy_and_gold_part(run_directory: Path) -> None:
    def last(variant: str) -> dict[str, float]:
        rows = [json.loads(line) for line in (run_directory / variant / "metrics.jsonl").read_text().splitlines()]
        window = rows[-5:]
        return {key: sum(row[key] for row in window) / 5 for key in ("ppo/proxy_score", "ppo/gold_score")} | {
            "kl": window[-1]["ppo/reference_kl"]
        }

    held, free = last("ppo"), last("arms/no-kl")
    assert free["ppo/proxy_score"] > held["ppo/proxy_score"]
    assert free["ppo/gold_score"] < held["ppo/gold_score"]
    assert free["kl"] > 2 * held["kl"]


def test_the_report_is_one_file_that_asks_for_nothing(run_directory: Path) -> None:
    page = (run_directory / "report.html").read_text()
    assert "<svg" in page
    assert "no-kl" in page
    assert not re.search(r'(?:src|href)="https?://', page)


def test_a_second_start_changes_no_byte_and_another_configuration_is_refused(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bytes_of_finals(run_directory)
    configuration = run_directory.parent / "tiny.yaml"
    assert main(["run", str(configuration), *FAST]) == 0
    assert bytes_of_finals(run_directory) == before
    assert main(["run", str(configuration), *FAST, "--sft.epochs", "3"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "sft.epochs" in error
    assert "another configuration" in error
