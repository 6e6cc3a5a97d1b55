"""The recipes of docs/recipes.md as they stand, on rows that have the columns of the data sets they name."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from tests.end_to_end.test_examples import EXAMPLES, SMALL
from tests.rewards.test_classifier import classifier

from triphase.cli.main import main
from triphase.demo.tiny import tiny_directory
from triphase.settings.loading import load_settings

GOOD, BAD = "sun song friend", "mud rust mud"
ROOT = EXAMPLES.parent


def prompts(count: int = 40) -> list[str]:
    lines = (tiny_directory() / "prompts.jsonl").read_text().splitlines()[:count]
    return [json.loads(line)["prompt"] for line in lines]


def hh(text: str) -> dict[str, Any]:
    return {side: f"\n\nHuman: {text}\n\nAssistant: {answer}" for side, answer in (("chosen", GOOD), ("rejected", BAD))}


def rated(text: str) -> dict[str, Any]:
    """openbmb/UltraFeedback, with what it has besides."""
    answers = [(GOOD, 9.0), ("road rain", 5.0), (BAD, 1.0)]
    told = {"annotations": {"helpfulness": {"Rating": "5"}}, "custom_system_prompt": "Be kind.", "critique": "x"}
    made = [
        {"model": f"m{n}", "response": answer, "overall_score": score, **told}
        for n, (answer, score) in enumerate(answers)
    ]
    return {"source": "evol", "instruction": text, "models": [one["model"] for one in made], "completions": made}


def alpaca(text: str) -> dict[str, Any]:
    return {
        "instruction": text,
        "input": "",
        "output": GOOD,
        "text": f"### Instruction:\n{text}\n\n### Response:\n{GOOD}",
    }


ON_THE_HUB: Mapping[tuple[str, str | None], Callable[[str], dict[str, Any]]] = {
    ("Anthropic/hh-rlhf", "harmless-base"): hh,
    ("openbmb/UltraFeedback", None): rated,
    ("tatsu-lab/alpaca", None): alpaca,
    ("trl-lib/tldr", None): lambda text: {"prompt": text, "completion": GOOD},
    ("trl-lib/tldr-preference", None): lambda text: {"prompt": text, "chosen": GOOD, "rejected": BAD},
    ("stanfordnlp/imdb", None): lambda text: {"text": text, "label": 1},
}
PHASES = {
    "hh-harmless": {"reward", "ppo"},
    "ultrafeedback": {"reward", "ppo"},
    "alpaca": {"sft"},
    "tldr": {"sft", "reward", "ppo"},
    "sentiment-classifier": {"ppo"},
    "best-of-n": {"ppo"},
}


def load(path: str, split: str, name: str | None = None, data_dir: str | None = None) -> Any:
    """As `datasets.load_dataset` does it: a folder is no configuration."""
    if name is not None:
        raise ValueError(f"BuilderConfig {name!r} not found. Available: ['default']")
    assert split == "train"
    return datasets.Dataset.from_list([ON_THE_HUB[path, data_dir](text) for text in prompts()])


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """The words behind a verb: a recipe and what makes it small."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    (tmp_path / "examples" / "data").mkdir()
    rows = [{"prompt": text} for text in prompts()]
    (tmp_path / "examples/data/prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "examples"))
    monkeypatch.setattr(datasets, "load_dataset", load)

    def words(name: str) -> list[str]:
        small = dict(SMALL)
        if name == "alpaca":
            small = {key: value for key, value in small.items() if not key.startswith(("ppo.", "evaluation."))}
        if PHASES[name] & {"reward"}:
            small["reward.require_better_than_chance"] = "false"
        if name == "sentiment-classifier":
            small["ppo.scorer.options.model"] = str(
                classifier(
                    tmp_path / "classifier",
                    labels=2,
                    id2label={0: "NEGATIVE", 1: "POSITIVE"},
                    label2id={"NEGATIVE": 0, "POSITIVE": 1},
                )
            )
        return [f"examples/{name}.yaml", *(word for key, value in small.items() for word in (f"--{key}", value))]

    return words


@pytest.mark.parametrize("name", PHASES)
def test_a_recipe_passes_the_check(
    name: str, recipe: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *recipe(name)]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "are valid" in told and "cannot be used" not in told


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_a_recipe_runs(name: str, recipe: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *recipe(name)]) == 0, capsys.readouterr().err
    run = Path("runs") / name
    assert {phase for phase in ("sft", "reward", "ppo") if (run / phase / "final").is_dir()} == PHASES[name]
    assert (run / "report.html").is_file()


def test_no_recipe_waits_for_people() -> None:
    for name in PHASES:
        assert load_settings(EXAMPLES / f"{name}.yaml").labeling.source == "none", name


def test_every_recipe_has_its_section() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    named = set(re.findall(r"examples/([\w-]+)\.yaml", page))
    assert named >= {*PHASES, "ppo-function"}
