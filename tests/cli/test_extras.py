"""Without an extra, every command that needs it names it in one line, without a traceback."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from triphase.cli.main import COMMANDS, LABEL_COMMANDS, USER_COMMANDS

ROOT = Path(__file__).parents[2]
PROGRAM = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
blocked, commands = json.loads(sys.argv[1])
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from triphase.cli.main import main
for command in commands:
    said, shown = io.StringIO(), io.StringIO()
    with redirect_stderr(said), redirect_stdout(shown):
        code = main(command)
    print(json.dumps([command, code, said.getvalue(), shown.getvalue()]))
"""
_MODULES = {"argon2-cffi": "argon2", "markdown-it-py": "markdown_it", "python-multipart": "multipart"}
CORE = {"cyclopts", "pydantic", "pyyaml", "rich"}


def modules_of(*extras: str) -> set[str]:
    """The modules that extras bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {line.split(">")[0].split("=")[0].split("[")[0] for extra in extras for line in project[extra]}
    return {_MODULES.get(name, name) for name in names}


def without(blocked: set[str], commands: list[list[str]], folder: Path) -> list[tuple[list[str], int, str, str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([sorted(blocked), commands])],
        capture_output=True, text=True, cwd=folder, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    (tmp_path / "c.yaml").write_text(
        "name: my\nmodel: {name: 'embedded:tiny'}\n"
        "data: {demonstrations: [{path: d.jsonl}], prompts: [{path: d.jsonl}]}\n"
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text((tmp_path / "c.yaml").read_text())
    (tmp_path / "exported").mkdir()
    for name in ("README.md", "config.json", "model.safetensors"):
        (tmp_path / "exported" / name).write_text("{}")
    return tmp_path


ARGUMENTS = {
    "run": ["c.yaml"], "sft": ["c.yaml"], "sample": ["c.yaml"], "reward": ["c.yaml"], "ppo": ["c.yaml"],
    "evaluate": ["c.yaml"], "plan": ["c.yaml"], "check": ["c.yaml"], "report": ["run"], "chat": ["run"],
    "export": ["run", "--to", "new"], "push": ["exported", "who/what"], "completion": ["bash"],
    "score": ["run", "d.jsonl"],
}  # fmt: skip
ALONE = ("init", "settings", "rollouts")
"""Commands that need no extra; the last needs vLLM, in an environment of its own."""
LABEL_ARGUMENTS = {
    "serve": ["run", "--create"],
    "import": ["run", "d.jsonl"],
    "export": ["run", "o.jsonl"],
    "score": ["run"],
}


def test_with_nothing_but_the_core_every_command_names_its_extra(folder: Path) -> None:
    commands = [[name, *ARGUMENTS.get(name, [])] for name, _, _ in COMMANDS if name not in ALONE]
    commands += [["label", name, *LABEL_ARGUMENTS.get(name, ["run"])] for name, _, _ in LABEL_COMMANDS]
    commands += [
        ["label", "users", name, *(["run"] if name == "list" else ["run", "ann"])] for name, _, _ in USER_COMMANDS
    ]
    blocked = modules_of("train", "label", "parquet", "vllm")
    assert not blocked & CORE and len(blocked) > 20
    for command, code, said, shown in without(blocked, commands, folder):
        words = command[:2] if command[0] == "label" else command[:1]
        both = command[0] == "label" and command[1] in ("sample", "score")
        extra = "train,label" if both else "label" if command[0] == "label" else "train"
        assert code == 2, (command, said, shown)
        assert said.startswith("error: ") and said.count("\n") == 1, (command, said)
        assert f"pip install 'triphase[{extra}]'" in said and " ".join(words) in said, (command, said)


def test_a_configuration_is_begun_and_explained_with_the_core_alone(folder: Path) -> None:
    (folder / "shown.jsonl").write_text('{"prompt": "who?", "completion": "I."}\n')
    blocked = modules_of("train", "label", "parquet", "vllm")
    for _, code, said, shown in without(blocked, [["init", "shown.jsonl"], ["settings", "ppo.iterations"]], folder):
        assert code == 0 and not said and shown
    assert (folder / "my-run.yaml").is_file()


def test_help_and_version_need_the_core_alone(folder: Path) -> None:
    blocked = modules_of("train", "label", "parquet", "vllm")
    for _, code, said, shown in without(blocked, [["--help"], ["--version"], ["label", "--help"]], folder):
        assert code == 0 and not said and shown


def test_the_labeling_server_needs_no_part_of_training_and_no_parquet(folder: Path) -> None:
    (folder / "r.jsonl").write_text(
        "".join(json.dumps({"prompt": f"q{n}", "response": f"a{k}"}) + "\n" for n in range(3) for k in range(3))
    )
    blocked = modules_of("train", "parquet") - modules_of("label") - {"httpcore"}  # which httpx brings
    commands = [
        ["label", "import", "run", "r.jsonl"],
        ["label", "simulate", "run", "--labelers", "2"],
        ["label", "stats", "run"],
        ["label", "export", "run", "out.jsonl"],
        ["label", "users", "list", "run"],
        ["label", "export", "run", "out.parquet"],
        ["label", "import", "run", "r.parquet"],
    ]
    (folder / "r.parquet").write_bytes(b"PAR1")
    found = without(blocked, commands, folder)
    assert [code for _, code, _, _ in found] == [0, 0, 0, 0, 0, 2, 2], found
    assert all("pip install 'triphase[parquet]'" in said for _, code, said, _ in found if code == 2), found[-2:]
    assert not (folder / "out.parquet").exists()


def test_an_import_that_fails_for_another_reason_keeps_its_traceback() -> None:
    from triphase.cli.extras import missing_package

    assert (
        missing_package(ModuleNotFoundError("No module named 'triphase.nowhere'", name="triphase.nowhere"), ["ppo"])
        is None
    )
    assert missing_package(ImportError("cannot import name 'x'"), ["ppo"]) is None
