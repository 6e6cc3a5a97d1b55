"""What a run leaves is a model for what follows: to talk to, to sample from, to begin another run from."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from tests.runs.small_run import do, files_of, settings, write_data

from triphase.cli.main import main
from triphase.runs import pipeline
from triphase.store import open_store
from triphase.training.checkpoint import find_damage

POLICIES = ("sft/final", "ppo/final")
REWARD = {"head_penalty": 0.1, "require_better_than_chance": False}  # no cross-validation: it takes most of the time


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run whose policies are adapters on the embedded base."""
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    steps = (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward, pipeline.run_ppo)
    do(settings(folder, method="lora", reward=REWARD), *steps)
    return folder / "runs" / "small"


def said(arguments: list[str], lines: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints that reads these lines."""
    output = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    with contextlib.redirect_stdout(output):
        assert main(arguments) == 0
    return output.getvalue()


def test_one_talks_to_a_policy_as_to_its_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = {place: said(["chat", str(finished / place)], "sun road\n\n", monkeypatch) for place in (*POLICIES, "")}
    assert heard["ppo/final"] == heard[""]
    assert all(len(text.split("›")[1].split()) >= 1 for text in heard.values())


def test_both_policies_answer_the_prompts_of_one_store(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "labels.sqlite"
    assert main(["label", "import", str(place), str(finished.parent.parent / "prompts.jsonl")]) == 0
    for policy in POLICIES:
        options = ["--max-response-tokens", "6", "--temperature", "0.7"]
        assert main(["label", "sample", str(place), str(finished / policy), *options]) == 0
    with open_store(place) as store:
        responses, prompts = store.responses(), store.prompts()
    of = {
        name: {one.prompt_id: one.text for one in responses if one.model == name} for name in ("small-sft", "small-ppo")
    }
    assert len(responses) == 2 * len(prompts) and all(len(texts) == len(prompts) for texts in of.values())
    assert of["small-sft"] != of["small-ppo"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_begins_from_a_policy(
    policy: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    config = tmp_path / "next.yaml"
    model = {"name": str(finished / policy), "dtype": "float32", "max_length": 64}
    chosen = settings(tmp_path, method="lora", model=model, reward=REWARD, adapters={"layers": 1, "rank": 2})
    before = files_of(finished, "**/*")
    config.write_text(json.dumps(chosen.model_dump(mode="json", exclude_defaults=True)))
    assert main(["check", str(config)]) == 0
    assert main(["run", str(config)]) == 0
    run = tmp_path / "runs" / "small"
    assert all(find_damage(run / phase / "final") is None for phase in ("sft", "reward", "ppo"))
    assert (run / "report.html").is_file() and files_of(finished, "**/*") == before
    first = json.loads((run / "sft" / "metrics.jsonl").read_text().splitlines()[0])["sft/loss"]
    plain = json.loads((finished / "sft" / "metrics.jsonl").read_text().splitlines()[0])["sft/loss"]
    assert first < plain - 0.05  # it goes on from what the policy learned
    assert said(["chat", str(run / "ppo" / "final")], "sun road\n\n", monkeypatch).count("›") == 2


def begun_from(folder: Path, model: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    """What `check` and `run` say of PPO alone from a model, and that both succeed."""
    write_data(folder)
    ppo = {**settings(folder).ppo.model_dump(mode="json"), "scorer": {"function": "tests.rewards.functions:lengths"}}
    fixed = {"sft": {"method": "none"}, "labeling": {"source": "none"}, "ppo": ppo}
    chosen = settings(folder, model={"dtype": "float32", "max_length": 64, **model}, **fixed)
    config = folder / "next.yaml"
    config.write_text(json.dumps(chosen.model_dump(mode="json", exclude_defaults=True)))
    heard = ""
    for verb in ("check", "run"):
        assert main([verb, str(config)]) == 0
        printed = capsys.readouterr()
        heard += printed.out + printed.err
    return heard


def test_ppo_begins_from_an_adapter_on_its_base(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = finished / "sft" / "final"
    heard = begun_from(tmp_path, {"name": "embedded:tiny", "adapter": str(adapter)}, capsys)
    assert heard.count(f"model.adapter: {adapter} is merged into embedded:tiny") >= 2
    begun_from(tmp_path / "again", {"name": str(adapter)}, capsys)
    ours, theirs = (
        files_of(place / "runs" / "small", "ppo/final/*.safetensors") for place in (tmp_path, tmp_path / "again")
    )
    assert ours == theirs != {}  # one model by two names
    answers = [
        said(["chat", str(tmp_path / "runs" / "small" / place)], "sun road\n\n", monkeypatch)
        for place in ("ppo/final", "")
    ]
    assert answers[0] == answers[1]


def test_a_run_is_a_model(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun_from(tmp_path / "run", {"name": str(finished)}, capsys)
    begun_from(tmp_path / "final", {"name": str(finished / "ppo" / "final")}, capsys)
    both = [files_of(tmp_path / name / "runs" / "small", "ppo/final/*.safetensors") for name in ("run", "final")]
    assert both[0] == both[1] != {}
