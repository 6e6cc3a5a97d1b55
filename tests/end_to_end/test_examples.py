"""Each phase alone on a user's data: the settings files under examples/, run from end to end on the tiny model."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
from tests.rewards.test_classifier import classifier
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.runs.small_run import write_data

from triphase.cli.main import main
from triphase.demo.tiny import tiny_directory

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "model.name": "embedded:tiny",
    "model.dtype": "float32",
    "model.max_length": "64",
    "adapters.layers": "all",
    "adapters.rank": "2",
    "reward.head_penalty": "0.1",
    "sft.epochs": "1",
    "ppo.iterations": "2",
    "ppo.batch_size": "8",
    "ppo.minibatch_size": "8",
    "ppo.epochs": "1",
    "ppo.max_response_tokens": "8",
    "evaluation.samples_per_prompt": "2",
    "threads": "1",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples next to data of the tiny task, in a separate working directory."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    data = tmp_path / "examples" / "data"
    write_data(data)
    shutil.move(data / "demonstrations.jsonl", data / "instructions.jsonl")
    rows = [json.loads(line) for line in (tiny_directory() / "prompts.jsonl").read_text().splitlines()]
    kept = [*rows[:40], *rows[-10:]]
    compared = [{**row, "chosen": "sun song friend", "rejected": "mud rust mud rust"} for row in kept]
    (data / "comparisons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in compared))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "examples"))
    return tmp_path


def ran(name: str, capsys: pytest.CaptureFixture[str], **more: str) -> tuple[Path, str]:
    """The directory of an example's run, with the output of `check` and `run`; both leave out the same steps."""
    chosen = [word for key, value in {**SMALL, **more}.items() for word in (f"--{key}", value)]
    said, left = [], []
    for verb in ("check", "run"):
        assert main([verb, f"examples/{name}.yaml", *chosen]) == 0
        heard = capsys.readouterr()
        said.append(heard.out + heard.err)
        left.append([line for line in said[-1].splitlines() if line.startswith("left out: ")])
    assert "are valid" in said[0] and left[0] == left[1] != []
    return Path("runs") / name, said[1]


def trained(run: Path) -> set[str]:
    return {phase for phase in ("sft", "reward", "ppo") if (run / phase / "final").is_dir()}


def next_of(said: str) -> str:
    return next(line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("next"))


def test_ppo_with_prompts_and_a_function(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, said = ran("ppo-function", capsys)
    assert trained(run) == {"ppo"}
    assert "supervised fine-tuning: data.demonstrations is empty; embedded:tiny as it is, is the reference" in said
    assert "the reward model: PPO is scored by another scorer" in said
    assert next_of(said) == f"triphase chat {run}"
    page = (run / "report.html").read_text()
    assert "PPO against the original model" in page and "what is trained starts from the original model" in page
    assert "against SFT" not in page and "the SFT policy" not in page and "not run yet" not in page
    rows = [json.loads(line) for line in (run / "evaluation" / "samples.jsonl").read_text().splitlines()]
    assert {row["policy"] for row in rows} == {"sft", "ppo"} and all(row["score"] is not None for row in rows)
    first = json.loads((run / "ppo" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["ppo/ratio_max"] == pytest.approx(1, abs=0.5)


def test_ppo_in_five_minutes_tells_the_gain_in_deviations_of_the_start(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(folder / "examples" / "data" / "prompts.jsonl", folder / "examples" / "sentiment-prompts.jsonl")
    run, said = ran("sentiment-hello", capsys)
    assert trained(run) == {"ppo"}
    ppo = json.loads((run / "summary.json").read_text())["ppo"]
    rows = [json.loads(line) for line in (run / "evaluation" / "samples.jsonl").read_text().splitlines()]
    start = [row["score"] for row in rows if row["policy"] == "sft"]
    assert ppo["proxy_gain_deviations"] == pytest.approx(ppo["proxy_gain"] / statistics.pstdev(start))
    bounds = f"({ppo['proxy_gain_low']:+.2f} to {ppo['proxy_gain_high']:+.2f}; "
    told = f"{bounds}{ppo['proxy_gain_deviations']:+.2f} of its standard deviations at the start)"
    assert told in " ".join(said.split())
    assert "in SDs of start" in (run / "report.html").read_text()


def test_ppo_with_prompts_and_a_classifier(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = classifier(
        Path("examples") / "sentiment", 2, id2label={0: "BAD", 1: "POSITIVE"}, label2id={"BAD": 0, "POSITIVE": 1}
    )
    run, _ = ran("classifier", capsys, **{"ppo.scorer.options.model": "./sentiment"})
    assert trained(run) == {"ppo"} and made.is_dir()
    assert "the classifier" in (run / "report.html").read_text()
    said = json.loads((run / "summary.json").read_text())["ppo"]["scored_by"]
    assert said == f"the classifier {(folder / 'examples' / 'sentiment')}"


def test_ppo_with_prompts_and_a_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def by_length(asked: Asked) -> Reply:
        return Reply(body={"scores": [len(item["response"]) for item in asked.body["items"]]})

    with FakeServer(by_length).running() as server:
        run, said = ran("ppo-server", capsys, **{"ppo.scorer.address": f"{server.address}/score"})
    assert trained(run) == {"ppo"} and next_of(said) == f"triphase chat {run}"


def test_a_reward_model_with_preferences(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, said = ran("reward-model", capsys)
    assert trained(run) == {"reward"}
    assert "PPO: the data is preferences alone" in said
    assert next_of(said).startswith(f"triphase ppo {run}")
    page = (run / "report.html").read_text()
    assert (
        "correct on" in said and "PPO is left out: the data is preferences alone" in page and "not run yet" not in page
    )
    assert main(["ppo", str(run)]) == 0
    assert trained(run) == {"reward", "ppo"}
    assert next_of(capsys.readouterr().out).startswith("triphase evaluate")
    assert main(["evaluate", str(run)]) == 0
    assert next_of(capsys.readouterr().out).startswith("triphase chat")


def test_supervised_fine_tuning_with_demonstrations(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, said = ran("sft", capsys)
    assert trained(run) == {"sft"}
    assert "the data is demonstrations alone" in said
    page = (run / "report.html").read_text()
    assert "PPO is left out: the data is demonstrations alone" in page and "not run yet" not in page
    assert next_of(said) == f"triphase chat {run}"


@pytest.mark.parametrize(
    ("name", "verb", "why"),
    [
        ("ppo-function", "sft", "supervised fine-tuning: data.demonstrations is empty"),
        ("ppo-function", "sample", "sampling for labelers: labeling.source is none"),
        ("ppo-function", "reward", "the reward model: PPO is scored by another scorer"),
        ("sft", "reward", "the reward model: the data is demonstrations alone"),
        ("sft", "ppo", "there are no prompts"),
    ],
)
def test_a_verb_with_nothing_to_do_says_why(
    name: str, verb: str, why: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [word for key, value in SMALL.items() for word in (f"--{key}", value)]
    assert main([verb, f"examples/{name}.yaml", *chosen]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert why in told and told.startswith("error: ")
