"""A new user's path, without the documentation: init, check, plan, run, report, export; a plain library opens it."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from triphase.cli.main import main
from triphase.datacheck.run_data import RunData
from triphase.demo.tiny import tiny_directory
from triphase.records.forms import FORMS, Form
from triphase.settings.loading import load_settings

TINY = ["--model", "embedded:tiny", "--max-length", "64", "--response-tokens", "8", "--yes"]
# What makes it quick; a user gives none of these.
QUICK = {
    "adapters.rank": "2", "reward.head_penalty": "0.1", "reward.require_better_than_chance": "false", "threads": "1",
    "ppo.iterations": "1", "ppo.batch_size": "8", "ppo.minibatch_size": "8", "ppo.epochs": "1", "sft.epochs": "1",
    "evaluation.samples_per_prompt": "1", "evaluation.max_prompts": "4",
}  # fmt: skip
OPENS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
inputs = tokenizer("sun road", return_tensors="pt")
rows = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=5)
assert rows.shape[1] > 2 and "triphase" not in sys.modules
"""
SCORES = """
import sys
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
inputs = tokenizer("sun road", return_tensors="pt")
logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
assert logits.shape == (1, 1) and "triphase" not in sys.modules
"""


def shown(count: int = 60) -> list[dict[str, str]]:
    lines = (tiny_directory() / "demonstrations.jsonl").read_text().splitlines()[:count]
    return [json.loads(line) for line in lines]


def asked(count: int = 40) -> list[str]:
    rows = [json.loads(line) for line in (tiny_directory() / "prompts.jsonl").read_text().splitlines()]
    return [row["prompt"] for row in rows[:count]]


def trl(folder: Path) -> list[str]:
    """JSON lines in TRL's columns."""
    roles = (("user", "prompt"), ("assistant", "completion"))
    told = [{"messages": [{"role": role, "content": row[key]} for role, key in roles]} for row in shown()]
    compared = [{"prompt": text, "chosen": "sun song friend", "rejected": "mud rust mud"} for text in asked()]
    for name, rows in (("a.jsonl", told), ("b.jsonl", compared)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["a.jsonl", "b.jsonl"]


def plain(folder: Path) -> list[str]:
    """Text that is learned whole, and HH-RLHF's transcripts."""
    told = [{"text": f"{row['prompt']} {row['completion']}"} for row in shown()]
    sides = (("chosen", "sun song friend"), ("rejected", "mud rust mud"))
    compared = [{side: f"\n\nHuman: {text}\n\nAssistant: {answer}" for side, answer in sides} for text in asked()]
    for name, rows in (("a.jsonl", told), ("b.jsonl", compared)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["a.jsonl", "b.jsonl"]


def alpaca(folder: Path) -> list[str]:
    """Alpaca as a table, and votes as another."""
    with open(folder / "a.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["instruction", "input", "output"])
        writer.writerows([row["prompt"], "", row["completion"]] for row in shown())
    with open(folder / "b.tsv", "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["prompt", "response_a", "response_b", "winner"])
        writer.writerows([text, "sun song friend", "mud rust mud", "a"] for text in asked())
    return ["a.csv", "b.tsv"]


def ultrafeedback(folder: Path) -> list[str]:
    """ShareGPT as a list, and rated completions in Parquet, in a directory."""
    told = [{"conversations": [{"from": "human", "value": row["prompt"]}, {"from": "gpt", "value": row["completion"]}]}
            for row in shown()]  # fmt: skip
    (folder / "a.json").write_text(json.dumps(told))
    rated = [{"instruction": text, "completions": [
        {"response": "sun song friend", "overall_score": 9.0}, {"response": "road rain", "overall_score": 5.0},
        {"response": "mud rust mud", "overall_score": 1.0}]} for text in asked()]  # fmt: skip
    (folder / "rated").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rated), folder / "rated" / "b.parquet")
    return ["a.json", "rated"]


@pytest.mark.parametrize(
    "data",
    [
        trl,
        pytest.param(plain, marks=pytest.mark.slow),
        pytest.param(alpaca, marks=pytest.mark.slow),
        pytest.param(ultrafeedback, marks=pytest.mark.slow),
    ],
)
def test_six_commands_lead_from_data_to_a_model(
    data: Callable[[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    require_a_model(data(tmp_path), capsys)


def require_a_model(files: list[str], capsys: pytest.CaptureFixture[str], *, phases: str = "sft, reward, ppo") -> None:
    """Six commands, none with an error or a traceback, and a seventh that is not ours."""
    quick = [word for key, value in QUICK.items() for word in (f"--{key}", value)]
    commands = (
        ["init", *files, *TINY],
        ["check", "my-run.yaml", *quick],
        ["plan", "my-run.yaml", *quick],
        ["run", "my-run.yaml", *quick],
        ["report", "runs/my-run"],
        ["export", "runs/my-run", "--to", "model", *(["--what", "reward"] if phases == "reward" else [])],
    )
    for words in commands:
        code = main(words)
        heard = capsys.readouterr()
        assert code == 0, (words[0], heard.err)
        assert "Traceback" not in heard.out + heard.err
    assert Path("runs/my-run/report.html").is_file()
    assert ", ".join(phase for phase in ("sft", "reward", "ppo") if Path("runs/my-run", phase).is_dir()) == phases
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    opens = SCORES if phases == "reward" else OPENS
    opened = subprocess.run(
        [sys.executable, "-c", opens, "model"], env=environment, capture_output=True, text=True, check=False
    )
    assert opened.returncode == 0, opened.stderr


EACH = [(form, role) for form in FORMS for role in form.roles]


def in_form(form: Form, place: int, prompt: str) -> str:
    """A row of a form with a prompt and answers of the tiny task."""
    rows = "\n".join(map(json.dumps, (form.example, *form.more)))
    row = rows.replace("Name a tree.", prompt).replace("An elm.", f"sun song {'sea ' * place}end")
    row = row.replace('"No."', '"mud rust"').replace(r"\"No.\"", r"\"mud rust\"")  # also in a cell that holds JSON
    return row.replace("Assistant: No.", "Assistant: mud rust")


@pytest.mark.parametrize(("form", "role"), EACH, ids=[f"{form.name}-{role}" for form, role in EACH])
def test_each_form_is_one_command_from_a_configuration_that_reads_it(
    form: Form, role: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything after reading is the same for all forms; the test above covers it."""
    texts = asked(12)
    (here / "data.jsonl").write_text("".join(f"{in_form(form, n, text)}\n" for n, text in enumerate(texts)))
    assert main(["init", f"{role}:data.jsonl", *TINY]) == 0, capsys.readouterr().err
    data = RunData(load_settings(here / "my-run.yaml"), note=lambda line: None)
    good = [f"sun song {'sea ' * n}end" for n in range(12)]
    if role == "demonstrations":
        (shown,) = data.demonstrations()
        assert [one.response for one in shown] == good
        found = [one.prompt.text if one.prompt.messages else texts[n] for n, one in enumerate(shown)]
    elif role == "preferences":
        pairs = [
            one for one in data.comparisons() if not one.tied and one.chosen in good and one.rejected == "mud rust"
        ]
        assert [one.chosen for one in pairs] == good
        found = [one.prompt.text for one in pairs]
    else:
        found = [one.text for one in data.prompts()]
    assert len(found) == 12 and all(text in whole for text, whole in zip(texts, found, strict=True))


PATHS = {"demonstrations": "sft", "preferences": "reward"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "role"),
    [(form, role) for form, role in EACH if role in PATHS],
    ids=[f"{form.name}-{role}" for form, role in EACH if role in PATHS],
)
def test_each_form_alone_leads_to_a_model(
    form: Form, role: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy from demonstrations, or a reward model from preferences; what such data cannot give is left out."""
    (here / "data.jsonl").write_text("".join(f"{in_form(form, n, text)}\n" for n, text in enumerate(asked(24))))
    files = [f"{role}:data.jsonl"]
    require_a_model(files, capsys, phases=PATHS[role])
