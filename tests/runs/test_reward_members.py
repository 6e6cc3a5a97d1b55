"""A run with an ensemble and a witness: exact resume, its results, and the commands that open them."""

import json
import shutil
from math import ceil
from pathlib import Path
from statistics import fmean, pstdev

import pytest
import torch
from tests.runs.small_run import do, files_of, settings, write_data

import triphase
from triphase.errors import RunError, SettingsError
from triphase.models.members import WITNESS
from triphase.monitoring.metrics import FILE_NAME, read_metrics
from triphase.phases.sampling import sample_responses
from triphase.rewards.model import ModelScorer
from triphase.rewards.types import Answer
from triphase.runs import pipeline
from triphase.runs.checkpoint_selection import choose_best
from triphase.runs.checkpoints import load_policy_at
from triphase.runs.evaluation import encoded
from triphase.runs.opening import open_run
from triphase.runs.verification import verify_run
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import is_whole
from triphase.training.reward_finals import load_reward_model
from triphase.training.stopping import Stopped

OPTIMIZER = {"learning_rate": 3e-3, "schedule": "linear"}
REWARD = {
    "epochs": 2,
    "batch_size": 8,
    "optimizer": OPTIMIZER,
    "require_better_than_chance": False,
    "ensemble": {"members": 2, "combine": "worst"},
    "witness": True,
}
BEFORE = (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling)


def chosen(folder: Path, output: str = "runs", **reward: object) -> RunSettings:
    return settings(folder, method="lora", output=output, reward={**REWARD, **reward})


def begun(folder: Path, output: str) -> Path:
    """A second run on the same data that has come to the reward model."""
    shutil.copytree(folder / "begun", folder / output)
    return folder / output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    write_data(folder)
    do(chosen(folder), *BEFORE)
    shutil.copytree(folder / "runs", folder / "begun")
    do(chosen(folder), pipeline.run_all)
    return folder


def final_of(folder: Path) -> dict[str, bytes]:
    return {
        name: data for name, data in files_of(folder, "**/reward/final/**/*").items() if name.endswith(".safetensors")
    }


def test_stopped_after_every_step_it_ends_with_the_same_members(whole: Path) -> None:
    stopped = begun(whole, "stopped")
    stops = 0
    while True:
        try:
            do(chosen(whole, "stopped"), pipeline.run_reward, stop=True)
            break
        except Stopped:
            stops += 1
    assert stops == 2 * 2 + 2  # 8 prompts in each half, 2 epochs: two steps of each member, two of the witness
    assert len(final_of(stopped)) == 2 * 3 and final_of(stopped) == final_of(whole / "runs")


def test_what_it_leaves(whole: Path) -> None:
    run = whole / "runs" / "small"
    told = json.loads((run / "reward" / "members.json").read_text())
    assert len(told["members"]) == 2 and 0 <= told["witness"]["heldout_accuracy"] <= 1
    names = {path.name for path in (run / "reward" / "final").iterdir()}
    assert names >= {"ensemble.json", "member-2", WITNESS, "adapter_model.safetensors"}
    rows = read_metrics(run / "ppo" / FILE_NAME)
    assert all("ppo/reward_disagreement" in row and "ppo/witness_score" in row for row in rows)
    assert all(verdict.same for verdict in verify_run(run, 2))


def test_it_is_opened_and_scores_from_python_and_in_ppo_alike(whole: Path) -> None:
    run = whole / "runs" / "small"
    model = triphase.load_reward_model(run)
    texts = ["sun song friend", "mud rust", "road"]
    found = model.score(["river stone road"] * 3, texts)
    opened = open_run(run)
    shared = opened.model()
    load_reward_model(shared, opened.artifact("reward"))
    assert shared.ensemble is not None and len(shared.ensemble.members) == 2 and shared.witness is not None
    assert isinstance(ModelScorer(shared), ModelScorer)
    by_hand = []
    for text in texts:
        template = shared.template
        from triphase.records.types import Message
        from triphase.tokens.encoding import Encoded

        prompt = template.prompt_ids([Message("user", "river stone road")])
        sample = Encoded(tuple(prompt), tuple(template.response_ids(text)))
        from triphase.batches.padding import pad_batch

        batch = pad_batch([sample], pad_id=template.pad_id)
        with torch.no_grad():
            each = [shared.scores_by(member, batch, shared.trunk(batch)) for member in shared.ensemble.members]
        how = shared.ensemble.combination
        by_hand.append((min(float(score) for score in each) - how.center) / how.scale)
    assert found == pytest.approx(by_hand, abs=1e-5)


def test_a_run_takes_it_from_there_and_a_classifier_is_refused(whole: Path, tmp_path: Path) -> None:
    write_data(tmp_path)
    run = whole / "runs" / "small"
    values = settings(tmp_path).model_dump(mode="json")
    values["sft"]["from"], values["reward"]["from"] = str(run), str(run)
    values["labeling"]["source"] = "none"
    taken = RunSettings.model_validate(values)
    do(taken, pipeline.run_all)
    rows = read_metrics(tmp_path / "runs" / "small" / "ppo" / FILE_NAME)
    assert all("ppo/reward_disagreement" in row and "ppo/witness_score" in row for row in rows)
    scorer = {"kind": "classifier", "options": {"model": str(run / "reward" / "final")}}
    with pytest.raises(SettingsError, match=r"contains an ensemble.*reward\.from"):
        do(
            settings(tmp_path, name="other", ppo={**values["ppo"], "scorer": scorer}, labeling={"source": "none"}),
            pipeline.run_all,
        )


def test_the_best_checkpoint_is_judged_by_both_models(whole: Path, tmp_path: Path) -> None:
    """Each response counts no more than nearly all of the SFT policy's on the same prompts."""
    run = Path(shutil.copytree(whole / "runs", tmp_path / "runs")) / "small"
    step = choose_best(open_run(run))
    choice = json.loads((run / "ppo" / "choice.json").read_text())
    assert choice["step"] == step and choice["by"] == "score and witness score less KL"
    assert is_whole(run / "ppo" / "best")

    opened = open_run(run)
    shared = opened.model()
    load_reward_model(shared, opened.artifact("reward"))
    scorer, prompts, scores = ModelScorer(shared), opened.prompts("heldout"), []
    for each in (None, step):
        adapter = opened.reference_adapter if each is None else load_policy_at(shared, run, each, "lora").adapter
        said = sample_responses(
            shared,
            prompts,
            adapter=adapter,
            model="best",
            count=opened.settings.evaluation.samples_per_prompt,
            temperature=opened.settings.ppo.temperature,
            max_response_tokens=opened.settings.ppo.max_response_tokens,
            max_length=opened.settings.model.max_length,
            batch_size=opened.settings.sampling.batch_size,
            seed=opened.settings.seed,
        )
        pairs = zip(said, encoded(shared, said), strict=True)
        scores.append(scorer.score([Answer(prompt, got.text, got.finished, ids) for (prompt, got, _), ids in pairs]))
    start, best = ([each.total, each.monitors["witness_score"]] for each in scores)
    value = fmean(
        fmean(min(score, sorted(first)[ceil(0.95 * len(first)) - 1]) for score in now) / pstdev(first)
        for first, now in zip(start, best, strict=True)
    )
    found = next(each for each in choice["candidates"] if each["step"] == step)
    assert found["value"] == pytest.approx(value - 0.05 * found["reference_kl"], abs=1e-4)
    assert found["value"] == max(each["value"] for each in choice["candidates"])
    assert (found["score"], found["witness"]) == pytest.approx([fmean(each) for each in best], abs=1e-4)


def test_a_damaged_member_is_refused_by_its_name(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "final"
    shutil.copytree(whole / "runs" / "small" / "reward" / "final", copy)
    path = copy / "member-2" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    shared = open_run(whole / "runs" / "small").model()
    with pytest.raises(RunError, match="member-2"):
        load_reward_model(shared, copy)


def test_the_mean_of_the_weights_leaves_one_reward_model(whole: Path) -> None:
    averaged, ensemble = begun(whole, "averaged"), {"members": 2, "combine": "average-weights"}
    do(chosen(whole, "averaged", ensemble=ensemble, witness=False), pipeline.run_reward)
    names = {path.name for path in (averaged / "small" / "reward" / "final").iterdir()}
    assert not names & {"ensemble.json", "member-2", WITNESS}


def test_a_run_whose_score_leaves_length_out(whole: Path) -> None:
    folder = begun(whole, "residual")
    do(chosen(whole, "residual", length="residual", witness=False), pipeline.run_reward)
    told = json.loads((folder / "small" / "reward" / "length.json").read_text())
    run = open_run(folder / "small")
    shared = run.model()
    load_reward_model(shared, run.artifact("reward"))
    assert shared.residual is not None and shared.residual.slope == told["slope"] != 0
    assert shared.residual.scale == told["deviation_left"]
    card = (run.artifact("reward") / "README.md").read_text()
    assert f"scores - {told['slope']!r} * n" in card
    load_reward_model(shared, open_run(whole / "runs" / "small").artifact("reward"))
    assert shared.residual is None  # nothing of another reward model stays


def test_settings_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="needs several members"):
        RunSettings.model_validate(
            {"name": "a", "model": {"name": "x"}, "data": {}, "reward": {"ensemble": {"combine": "worst"}}}
        )
