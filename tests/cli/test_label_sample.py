"""`label sample` adds responses of any model to a store, once, and continues after an interruption."""

import json
from pathlib import Path

import pytest

from triphase.cli.label_sample import name_of
from triphase.cli.main import main
from triphase.phases import sampling
from triphase.store import open_store


@pytest.fixture
def store(tmp_path: Path) -> str:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"say {word}"}) + "\n" for word in ("a", "b", "c")))
    place = str(tmp_path / "labels.sqlite")
    assert main(["label", "import", place, str(prompts)]) == 0
    return place


def ids(place: str) -> dict[str, str]:
    with open_store(place) as opened:
        return {response.id: response.text for response in opened.responses()}


def test_a_model_answers_every_prompt_once(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["label", "sample", store, "embedded:tiny", "--count", "2", "--max-response-tokens", "5"]
    assert main(command) == 0
    first = ids(store)
    assert len(first) == 6 and all("/tiny/" in name for name in first)
    assert main(command) == 0
    assert ids(store) == first
    assert "0 of them new" in capsys.readouterr().out
    assert main([*command, "--name", "other", "--seed", "1"]) == 0
    assert len(ids(store)) == 12


def test_what_was_sampled_can_be_exported_and_imported(store: str, tmp_path: Path) -> None:
    assert main(["label", "sample", store, "embedded:tiny", "--count", "2", "--max-response-tokens", "5"]) == 0
    assert main(["label", "export", store, str(tmp_path / "all.jsonl"), "--format", "store"]) == 0
    assert main(["label", "import", str(tmp_path / "other.sqlite"), str(tmp_path / "all.jsonl")]) == 0
    assert ids(str(tmp_path / "other.sqlite")) == ids(store)


def test_policies_of_runs_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("runs/one/sft/final", "runs/one/ppo/final", "runs/one/arms/no-kl/final", "models/llama"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs" / "one")
    given = (
        "sft/final",
        "ppo/final/",
        "arms/no-kl/final",
        "../one",
        "../../models/llama",
        "who/llama",
        "embedded:tiny",
    )
    names = ["one-sft", "one-ppo", "one-no-kl", "one", "llama", "llama", "tiny"]
    assert [name_of(model) for model in given] == names


def test_what_was_stopped_continues_with_the_same_responses(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["label", "sample", store, "embedded:tiny", "--count", "2", "--max-response-tokens", "5"]
    monkeypatch.setattr("triphase.runs.store_samples._KEPT", 2)
    whole, calls = sampling.sample_responses, iter(range(9))

    def stopped(*given, **options):  # type: ignore[no-untyped-def]
        if next(calls) == 1:
            raise KeyboardInterrupt
        return whole(*given, **options)

    monkeypatch.setattr("triphase.runs.store_samples.sample_responses", stopped)
    assert main(command) == 130
    part = ids(store)
    assert len(part) == 2
    assert main(command) == 0
    assert len(ids(store)) == 6 and part.items() <= ids(store).items()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--count", "0"], "--count is 0"), (["--temperature", "-1"], "--temperature is -1"), ([], "nowhere")],
)
def test_what_cannot_be_sampled_is_one_line(
    store: str, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["label", "sample", store, "/nowhere/model", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_store_without_prompts_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "empty.sqlite")
    open_store(place).close()
    assert main(["label", "sample", place, "embedded:tiny"]) == 2
    assert "contains no prompts" in capsys.readouterr().err
