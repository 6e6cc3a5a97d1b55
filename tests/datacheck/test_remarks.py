"""What is said about the records of a source once, by `check`, `run` and `init` alike."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from triphase.cli.main import main
from triphase.datacheck.run_data import RunData
from triphase.datacheck.survey import survey_data
from triphase.settings.schema import RunSettings

ANSWERS: dict[str, Any] = {
    "demonstrations": {"completion": "so"},
    "prompts": {},
    "preferences": {"chosen": "so", "rejected": "no"},
    "rankings": {"responses": ["so", "no"]},
    "votes": {"response_1": "so", "response_2": "no", "preference_strength": -1},
}


def settings(role: str, rows: Sequence[Any]) -> RunSettings:
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunSettings.model_validate({
        "name": "x", "model": {"name": "embedded:tiny"}, "labeling": {"source": "none"},
        "data": {role: [{"path": "p.jsonl"}]},
    })  # fmt: skip


def noted(chosen: RunSettings) -> list[str]:
    """What a run says as it reads its records."""
    notes: list[str] = []
    data = RunData(chosen, note=notes.append)
    data.demonstrations()
    data.prompts()
    return notes


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("parts", [1, 2])
def test_usual_names_of_the_splits_count_as_ours(
    kind: str, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if parts > 1:
        monkeypatch.setattr("triphase.datacheck.survey_parts.LARGE", 1)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
        monkeypatch.setattr("triphase.records.lines._BLOCK_BITS", 0)
    names = ("Train", "validation", "test", "test", "validation", "heldout", "held-out", "DEV")
    rows = [{"prompt": f"Say {n}.", "split": name, **ANSWERS[kind]} for n, name in enumerate(names)]
    role = kind if kind in ("demonstrations", "prompts") else "preferences"
    chosen = settings(role, rows)
    told = {
        "the split 'test' counts as heldout (2 records, the first is p.jsonl:3)",
        "the split 'validation' counts as heldout (2 records, the first is p.jsonl:2)",
        "the split 'held-out' counts as heldout (p.jsonl:7)",
        "the split 'dev' counts as heldout (p.jsonl:8)",
    }
    survey = survey_data(chosen).sources[0]
    assert (survey.refused, survey.heldout, {*survey.remarks.lines()}) == (0, 7, told)
    assert {f"p.jsonl: {line}" for line in told} <= {*noted(chosen)}


CHATML, GEMMA = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<bos><start_of_turn>user\nHi<end_of_turn>\n"
ASKED = "prompts contain {!r}, as if a chat template had been applied to them; the model's is applied too, if it has "
MARKED = {
    "chatml": ({"prompt": CHATML, "completion": "So."}, "<|im_start|>"),
    "chatml of a message": ({"messages": [{"role": "system", "content": CHATML}, {"role": "user", "content": "Hi"},
                                          {"role": "assistant", "content": "So."}]}, "<|im_start|>"),
    "gemma": ({"instruction": "", "prompt": GEMMA, "completion": "So."}, "<start_of_turn>"),
    "llama 2": ({"prompt": "<s>[INST] Hi [/INST]", "completion": "So."}, "[INST]"),
    "llama 3": ({"question": "<|start_header_id|>user<|end_header_id|>\n\nHi", "answer": "So"}, "<|start_header_id|>"),
    "zephyr": ({"instruction": "<|user|>\nHi</s>\n<|assistant|>\n", "output": "So."}, "<|user|>"),
    "alpaca": ({"prompt": "Do.\n\n### Instruction:\nHi\n\n### Response:\n", "completion": "So."}, "### Response:"),
    "vicuna": ({"prompt": "A chat. USER: Hi ASSISTANT:", "completion": "So."}, "ASSISTANT:"),
    "deepseek": ({"prompt": "<｜User｜>Hi", "completion": "So."}, "<｜User｜>"),
}  # fmt: skip


@pytest.mark.parametrize("name", MARKED)
def test_prompts_that_a_template_has_written_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row, mark = MARKED[name]
    chosen = settings("demonstrations", [{"prompt": "Plain <b>.", "completion": "So."}, row, {"text": CHATML + "So."}])
    told = ASKED.format(mark) + "one: write their turns as messages with role and content (p.jsonl:2)"
    assert survey_data(chosen).sources[0].remarks.lines() == [told]
    assert f"p.jsonl: {told}" in noted(chosen)


@pytest.mark.parametrize("end", ["<|im_end|>", "</s>\n", "<end_of_turn>", "<|eot_id|>", "<|endoftext|>"])
@pytest.mark.parametrize("role", ["demonstrations", "preferences"])
def test_responses_with_the_end_of_a_turn_are_named(
    role: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = {"completion": f"So.{end}", "chosen": "So.", "rejected": f"No.{end}"}
    chosen = settings(role, [{"prompt": "Hi", "completion": f"{end} so", "chosen": f"{end} a", "rejected": "b"},
                             {"prompt": "Ho", **answer}])  # fmt: skip
    (line,) = survey_data(chosen).sources[0].remarks.lines()
    assert line.startswith(f"responses end with {end.strip()!r}, and the model's end of a turn is added")
    assert line.endswith("(p.jsonl:2)")


def test_check_and_init_say_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Say {n}.", "split": "test" if n % 4 else "train", **ANSWERS["preferences"]} for n in range(40)]
    settings("preferences", rows)
    assert main(["init", "p.jsonl", "--yes", "--model", "embedded:tiny", "--to", "c.yaml"]) == 0
    assert "\n  the split 'test' counts as heldout (30 records, the first is p.jsonl:2)\n" in capsys.readouterr().out
    main(["check", "c.yaml"])
    said = " ".join(capsys.readouterr().out.split())
    assert "note: p.jsonl: the split 'test' counts as heldout (30 records, the first is p.jsonl:2)" in said
