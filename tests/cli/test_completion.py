"""Completion as a shell does it, and the help: one screen, with examples whose commands and options exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from triphase.cli.examples import EXAMPLES
from triphase.cli.main import CAMPAIGN_COMMANDS, COMMANDS, LABEL_COMMANDS, USER_COMMANDS, main

_ASK = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _triphase; echo "${COMPREPLY[@]}"'


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "triphase.bash"
    with pytest.MonkeyPatch.context() as patch, open(path, "w") as file:
        patch.setattr("sys.stdout", file)
        assert main(["completion", "bash"]) == 0
    return path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["triphase", "exp"], {"explain", "export"}),
        (["triphase", "label", "users", ""], {"add", "list", "pause", "reset"}),
        (["triphase", "export", "runs/demo", "--wh"], {"--what"}),
        (["triphase", "export", "runs/demo", "--what", ""], {"policy", "sft", "reward"}),
    ],
)
def test_bash_is_offered_commands_options_and_choices(script: Path, words: list[str], offered: set[str]) -> None:
    asked = ["bash", "-c", _ASK, "ask", str(script), *words]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered and not done.stderr


@pytest.mark.parametrize(
    ("shell", "begins"), [("zsh", "#compdef triphase\n"), ("fish", "# Fish completion for triphase\n")]
)
def test_zsh_and_fish_have_theirs(shell: str, begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    told = capsys.readouterr().out
    assert told.startswith(begins) and "quarantine" in told


def test_another_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_help_is_one_screen_without_colors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR")
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert "\x1b" not in told and len(lines) <= 45 and max(map(len, lines)) <= 80
    assert len([line for line in lines if line.startswith("│")]) == len(COMMANDS) + 3  # no meaning takes two lines


def test_every_command_has_an_example() -> None:
    names = [name for name, _, _ in COMMANDS]
    names += [f"label {name}" for name, _, _ in LABEL_COMMANDS]
    names += [f"label users {name}" for name, _, _ in USER_COMMANDS]
    names += [f"label campaigns {name}" for name, _, _ in CAMPAIGN_COMMANDS]
    assert set(EXAMPLES) == {*names}


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_are_of_their_command_and_shown_with_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    told = capsys.readouterr().out
    options, _, shown = told.partition("Examples:")
    for line in EXAMPLES[command]:
        words = shlex.split(line.partition(">")[0])
        assert words[1 : 1 + len(command.split())] == command.split() and line in " ".join(shown.split())
        given = [word for word in words if re.fullmatch(r"--[a-z-]+", word)]  # settings have a dot
        assert all(option in options for option in given), line
