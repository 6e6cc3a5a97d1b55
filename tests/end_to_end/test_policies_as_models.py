"""The result of a run is a model for later steps: chat, sampling, and the start of another run."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.end_to_end.fake_hub import fake_hub
from tests.runs.small_run import do, files_of, settings, write_data

from triphase.batches.padding import pad_batch
from triphase.cli.main import main
from triphase.demo.tiny import tiny_directory
from triphase.runs import pipeline
from triphase.runs.opening import open_policy
from triphase.store import open_store
from triphase.tokens.encoding import Encoded
from triphase.training.checkpoint import find_damage
from triphase.training.reward_finals import load_reward_model

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
    """The output of `check` and `run` for PPO alone from a model; both succeed."""
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


# In the hands of plain libraries, in a process that has never heard of Triphase

PLAIN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
base, folder = sys.argv[1:]
ids, found = torch.tensor([[5, 9, 7, 11, 1]]), {}
with torch.no_grad():
    for name in ("policy", "sft"):
        whole = AutoModelForCausalLM.from_pretrained(f"{folder}/{name}").eval()
        plain = AutoModelForCausalLM.from_pretrained(base)
        adapted = PeftModel.from_pretrained(plain, f"{folder}/{name}-adapter").eval()
        found[name] = [model(input_ids=ids).logits[0, -1].tolist() for model in (whole, adapted)]
    whole = AutoModelForSequenceClassification.from_pretrained(f"{folder}/reward").eval()
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    adapted = PeftModel.from_pretrained(plain, f"{folder}/reward-adapter").eval()
    found["reward"] = [model(input_ids=ids).logits[0].tolist() for model in (whole, adapted)]
assert "triphase" not in sys.modules
print(json.dumps(found))
"""


def in_a_fresh_process(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run([sys.executable, *arguments], env=given, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `export` writes of a run: each of its models, merged and as an adapter."""
    folder = tmp_path_factory.mktemp("exported")
    for what in ("policy", "sft", "reward"):
        assert main(["export", str(finished), "--what", what, "--to", str(folder / what)]) == 0
        assert (
            main(["export", str(finished), "--what", what, "--adapter", "--to", str(folder / f"{what}-adapter")]) == 0
        )
    return folder


def test_merged_and_adapter_give_the_same_numbers_in_plain_libraries(finished: Path, exported: Path) -> None:
    base = tiny_directory() / "model"
    done = in_a_fresh_process(["-c", PLAIN, str(base), str(exported)], PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for whole, adapted in found.values():
        assert whole == pytest.approx(adapted, abs=1e-4)
    assert found["policy"][0] != pytest.approx(found["sft"][0], abs=1e-3)
    shared, adapter, _ = open_policy(finished)
    ids = torch.tensor([[5, 9, 7, 11, 1]])
    with torch.no_grad(), shared.role(adapter):
        own = shared.backbone.model(input_ids=ids).logits[0, -1]
    assert found["policy"][0] == pytest.approx(own.tolist(), abs=1e-4)
    load_reward_model(shared, finished / "reward" / "final")
    score = shared.score_head.linear.bias.item() + found["reward"][0][0]
    batch = pad_batch([Encoded((5, 9), (7, 11, 1))], pad_id=0)
    with torch.no_grad():
        assert score == pytest.approx(float(shared.scores(batch, shared.trunk(batch))[0]), abs=1e-4)


def test_the_card_says_what_is_known_of_the_run(exported: Path) -> None:
    for what in ("policy", "sft", "reward"):
        for name in (what, f"{what}-adapter"):
            card = (exported / name / "README.md").read_text()
            assert card.startswith("---\nlicense: apache-2.0\n")
            for section in ("## Base and license", "## Data", "## Settings", "## Limits"):
                assert card.count(section) == 1, (name, section)
            assert "`demonstrations.jsonl`" in card and find_damage(exported / name) is None
            assert ("ppo.kl_coefficient" in card) is (what == "policy")


def test_what_cannot_be_exported_is_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = str(tmp_path / "new")
    for words, told in (
        (["--what", "reward", "--checkpoint", "1", "--to", new], "--checkpoint 1: selects a merged PPO policy"),
        (["--adapter", "--to", str(finished)], "already exists"),
    ):
        assert main(["export", str(finished), *words]) == 2
        assert told in capsys.readouterr().err
    assert not Path(new).exists()


def test_a_directory_is_pushed_to_a_hub(exported: Path, tmp_path: Path) -> None:
    with fake_hub() as hub:
        environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_test", "HF_HUB_OFFLINE": "0"}
        words = ["-m", "triphase", "push", str(exported / "reward-adapter"), "org/name"]
        done = in_a_fresh_process(words, **environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("a" * 40) and hub.made == {"org/name": True}
        there = {
            path.name: path.read_bytes()
            for path in (exported / "reward-adapter").iterdir()
            if path.is_file() and path.name != "manifest.json"
        }
        assert {name: data for name, data in hub.files.items() if name in there} == there
        hub.refuses = True
        refused = in_a_fresh_process(words, **environment)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
        assert "org/name: the hub refused it" in refused.stderr and "hf auth login" in refused.stderr
    gone = in_a_fresh_process(words, **environment)
    assert gone.returncode == 2 and "org/name: the hub cannot be reached" in gone.stderr, gone.stderr
    for place, name, told in (
        (tmp_path, "org/name", "contains no exported model"),
        (exported, "name", "not a repository"),
    ):
        with contextlib.redirect_stderr(io.StringIO()) as error:
            assert main(["push", str(place), name]) == 2
        assert told in error.getvalue()
