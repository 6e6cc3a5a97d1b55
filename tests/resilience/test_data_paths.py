"""Whatever a path of a data file may stand for ends `check` and `run` in one line, at once."""

import json
import os
from pathlib import Path

import pytest

from triphase.cli.main import main

ODD = {
    "pipe.jsonl": "is a pipe",
    "loop.jsonl": "is a symbolic link to itself",
    "directory.jsonl": "is a directory",
    "plain": "is a directory",
    "away.jsonl": "is a symbolic link to a file that is not there",
    "zero.jsonl": "is a device",
    "/dev/null": "is a device",
    "a" * 300 + ".jsonl": "the name is longer than the file system allows",
    "a" * 300: "neither a file",
    "~nosuchuser/a.jsonl": "there is no home directory of ~nosuchuser",
    "a\0b.jsonl": "contains a NUL character",
    "a\nb.jsonl": "there is no such file",
}


@pytest.mark.parametrize("role", ["demonstrations", "prompts", "preferences"])
def test_an_odd_path_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], role: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    os.mkfifo("pipe.jsonl")
    Path("directory.jsonl").mkdir()
    Path("plain").mkdir()
    Path("loop.jsonl").symlink_to("loop.jsonl")
    Path("away.jsonl").symlink_to("gone")
    Path("zero.jsonl").symlink_to("/dev/zero")
    shown = [{"prompt": f"say {word}", "completion": word * 3} for word in "abcdefgh"]
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
    for number, (path, message) in enumerate(ODD.items()):
        data = {"demonstrations": [{"path": "d.jsonl"}], "prompts": [{"path": "d.jsonl"}], role: [{"path": path}]}
        Path("c.yaml").write_text(
            f"name: c{number}\nmodel: {{name: 'embedded:tiny'}}\nlabeling: {{source: people}}\n"
            f"adapters: {{layers: all}}\nppo: {{batch_size: 4, minibatch_size: 4}}\ndata: {json.dumps(data)}\n"
        )
        for verb in ("check", "run"):
            assert main([verb, "c.yaml"]) == 2, path
            error = capsys.readouterr().err
            [line] = [line for line in error.splitlines() if line.startswith("error: ")]
            assert message in line
            assert "Traceback" not in error


COMMANDS = (
    ["report"], ["run"], ["check"], ["plan"], ["export", "--to", "new"], ["label", "stats"], ["label", "users", "list"],
    ["label", "serve"], ["label", "score"],
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", ["a" * 300, "pipe", "/dev/zero", "loop", "a\0b", "~nosuchuser/x"], ids=lambda n: n[:9])
def test_an_odd_path_on_the_command_line_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    assert main([*command, name]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1


def test_a_name_that_is_too_long_for_an_export_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "nowhere", "--to", "a" * 300]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("{name: 'embedded:tiny', chat_template: ./pipe}", "pipe: is a pipe or a device; write the template to a file"),
        ("{name: 'embedded:tiny', chat_template: /dev/zero}", "/dev/zero: is a pipe or a device"),
        ("{name: ./model}", "config.json: is a pipe or a device, not a regular file"),
        ("{name: /dev}", "is a pipe or a device, not a regular file"),
    ],
)
def test_a_pipe_or_device_of_a_model_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("model").mkdir()
    os.mkfifo("model/config.json")
    Path("d.jsonl").write_text("".join(json.dumps({"prompt": f"say {c}", "completion": c}) + "\n" for c in "abcdefgh"))
    Path("c.yaml").write_text(
        f"name: c\nmodel: {model}\nlabeling: {{source: people}}\nadapters: {{layers: all}}\n"
        "ppo: {batch_size: 4, minibatch_size: 4}\n"
        "data: {demonstrations: [{path: d.jsonl}], prompts: [{path: d.jsonl}]}\n"
    )
    assert main(["check", "c.yaml"]) == 2
    assert says in capsys.readouterr().err
