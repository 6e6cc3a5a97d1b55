"""The command line: what starts, how fast, and one line with exit code 2 for every mistake."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from triphase.cli import main as main_module
from triphase.cli.arguments import parse_overrides
from triphase.cli.main import (
    CAMPAIGN_COMMANDS,
    COMMANDS,
    INTERRUPTED,
    LABEL_COMMANDS,
    MISTAKEN,
    USER_COMMANDS,
    main,
)
from triphase.errors import SettingsError, TrainingError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def config(here: Path) -> Path:
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(30)]
    (here / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = here / "my.yaml"
    path.write_text(
        "name: my\nmodel: {name: 'embedded:tiny'}\nadapters: {layers: all}\n"
        "data:\n  demonstrations: [{path: d.jsonl}]\n  prompts: [{path: d.jsonl}]\n"
    )
    return path


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Run a command line that must fail with exit code 2; gives its one line."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == MISTAKEN
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and captured.err.startswith("error: ")
        assert "Traceback" not in captured.out + captured.err
        return captured.err.removeprefix("error: ").strip()

    yield run


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, _, meaning in COMMANDS:
        assert name in shown and meaning.split()[0] in shown
    assert main(["label", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name, _, _ in LABEL_COMMANDS)


def test_help_needs_nothing_heavy() -> None:
    program = (
        "import sys\nfrom triphase.cli.main import main\nmain(['--help'])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sqlalchemy', 'fastapi', 'numpy', 'pydantic', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_the_first_line_of_a_command_is_its_meaning_in_the_table() -> None:
    import importlib

    for name, function, meaning in (*COMMANDS, *LABEL_COMMANDS, *USER_COMMANDS, *CAMPAIGN_COMMANDS):
        module, _, attribute = function.partition(":")
        found = getattr(importlib.import_module(f"triphase.cli.{module}"), attribute)
        assert (found.__doc__ or "").splitlines()[0] == meaning, name


def test_python_m_is_the_same() -> None:
    result = subprocess.run([sys.executable, "-m", "triphase", "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "0.1.0")


def test_unknown_words_are_named(mistake: Callable[..., str]) -> None:
    assert mistake("runn") == "runn: unknown command; did you mean run?"
    assert mistake("label", "sreve") == "label sreve: unknown command; did you mean serve?"
    assert mistake("label", "users", "x").startswith("label users x: unknown command; known are add")
    assert "--discont" in mistake("explain", "--discont", "1")
    assert mistake("explain", "--discount", "x").endswith("see triphase explain --help")
    assert "CONFIG" in mistake("run")
    remedy = "put quotes around a name with spaces; see triphase"
    assert mistake("score", "runs/my", "my", "file.jsonl") == (
        f"file.jsonl: is one word too many; {remedy} score --help"
    )
    assert mistake("label", "stats", "a", "b", "c") == f"b c: are too many words; {remedy} label stats --help"


def test_mistakes_in_settings(mistake: Callable[..., str], config: Path) -> None:
    assert mistake("run", "gone.yaml").startswith("gone.yaml: cannot be read (No such file")
    assert mistake("run", config, "--ppo.kl-coeficient", "1").endswith("did you mean ppo.kl_coefficient?")
    assert mistake("run", config, "--ppo.epochs") == "--ppo.epochs: needs a value, for example --ppo.epochs 1"
    assert (
        mistake("run", config, "ppo.epochs")
        == "ppo.epochs: unexpected; settings are given as --ppo.kl-coefficient 0.02"
    )
    assert mistake("run", config, "--ppo.scorer", "{function: mine.py}").startswith(
        "--ppo.scorer: function: mine.py is not allowed; it must be"
    )
    assert mistake("ppo", config, "--variant", "x") == "--variant: there is no variant 'x'; known are none"
    assert mistake("ppo", config, "--variant", "x", "--variants.y.epochs", "2").endswith("no variant 'x'; known are y")
    assert mistake("report", config.parent).endswith("(no config.yaml in it); run directories are runs/NAME")
    assert mistake("export", config.parent, "--to", "x").endswith(
        "(no config.yaml in it); run directories are runs/NAME"
    )
    assert not (config.parent / "runs").exists()


def test_overrides_in_both_forms() -> None:
    assert parse_overrides(("--a.b", "-1", "--c=x=y", "--d=")) == {"a.b": "-1", "c": "x=y", "d": ""}
    for words in (("--a",), ("a", "b"), ("--",), ("--a=1", "--a", "2")):
        with pytest.raises(SettingsError):
            parse_overrides(words)


def test_check_reads_every_record(
    config: Path, capsys: pytest.CaptureFixture[str], mistake: Callable[..., str]
) -> None:
    assert main(["check", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "settings and data are valid" in shown and "30" in shown
    assert shown.endswith(f"next    triphase run {config}\n")
    with (config.parent / "d.jsonl").open("a") as file:
        file.write('{"prompt": "x"}\n{"prompt": ""}\n')
    assert mistake("check", config).endswith("(3 records cannot be used)")


def test_check_counts_leaks_and_contradictions(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = config.parent
    pair = {"prompt": "Why?", "chosen": "a", "rejected": "b", "split": "train"}
    rows = [pair, pair, {**pair, "chosen": "b", "rejected": "a"}]
    (here / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "p.jsonl").write_text(json.dumps({"prompt": "Why?", "split": "heldout"}) + "\n")
    config.write_text(
        "name: my\nmodel: {name: 'embedded:tiny'}\nlabeling: {source: none}\n"
        "data:\n  prompts: [{path: p.jsonl}]\n  preferences: [{path: c.jsonl}]\n"
    )
    assert main(["check", str(config)]) == MISTAKEN
    printed = capsys.readouterr()
    shown = " ".join(printed.out.split())
    assert "3 training records have a prompt that is held out elsewhere" in shown
    assert "3 comparisons are contradicted by their opposite" in shown
    assert "the reward model has nothing to learn from" in printed.err


def test_the_example_for_ones_own_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data").mkdir()
    for name, rows in (
        ("instructions", [{"prompt": "Why?", "completion": "So."}]),
        ("safety", [{"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "No."}]}]),
        ("prompts", [{"prompt": "Where?"}, {"prompt": "Who?", "split": "heldout"}]),
        ("comparisons", [{"prompt": "When?", "chosen": "Now.", "rejected": "Never."}]),
    ):
        (here / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "own-data.yaml").write_text((ROOT / "examples" / "own-data.yaml").read_text())
    assert main(["check", "own-data.yaml"]) == 0
    assert "safety 1" in capsys.readouterr().out


class _Command:
    """Stands for the application: raises what a command would."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *arguments: object, **options: object) -> None:
        raise self._error


def test_what_becomes_of_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> int:
        monkeypatch.setattr(main_module, "application", lambda: _Command(error))
        return main(["run", "my run.yaml"])

    assert raising(TrainingError("the loss\nis nan")) == MISTAKEN
    assert capsys.readouterr().err == "error: the loss is nan\n"
    assert raising(KeyboardInterrupt()) == INTERRUPTED
    assert capsys.readouterr().err == ("stopped; finished work is kept. To continue: triphase run 'my run.yaml'\n")
    with pytest.raises(ZeroDivisionError):  # a defect keeps its traceback
        raising(ZeroDivisionError())


def test_a_name_that_is_too_long_is_said_whatever_it_is_given_to(mistake: Callable[..., str], config: Path) -> None:
    long, data = "n" * 300, config.parent / "d.jsonl"
    for words in (
        ["init", data, "--to", long],
        ["runs", long],
        ["chat", long],
        ["check", config, "--name", long],
        ["check", config, "--quarantine", long],
        ["report", long],
    ):
        assert "nnn" in mistake(*words)


def test_an_environment_that_names_no_place_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "abc")
    done = subprocess.run([sys.executable, "-m", "triphase", "explain"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "lacks WORLD_SIZE" in done.stderr


def test_links_are_not_pushed(mistake: Callable[..., str], tmp_path: Path) -> None:
    for name in ("README.md", "model.safetensors", "secret"):
        (tmp_path / name).write_text("x")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "link.json").symlink_to(tmp_path / "secret")
    assert "more/link.json: is a link" in mistake("push", tmp_path, "org/name")


def test_an_adapter_on_a_path_of_this_machine_is_not_pushed(mistake: Callable[..., str], tmp_path: Path) -> None:
    for name in ("README.md", "adapter_model.safetensors"):
        (tmp_path / name).write_text("x")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/ann/sft/final"}')
    told = mistake("push", tmp_path, "org/name")
    assert "is an adapter on /home/ann/sft/final, which others cannot open; upload the merged model" in told


def test_a_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m triphase explain | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in result.stderr and "Broken" not in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--verison"], "--verison: unknown option; did you mean --version?"),
        (["--hlep"], "--hlep: unknown option; did you mean --help?"),
        (["trian", "x"], "trian: unknown command; did you mean run (every phase), sft, reward or ppo?"),
        (["serve", "x"], "serve: unknown command; did you mean label serve?"),
        (["evalute"], "evalute: unknown command; did you mean evaluate?"),
        (["label", "serv"], "label serv: unknown command; did you mean serve?"),
        (["label", "serve", "runs-typo"], "use --create to create one"),
        (["label", "stats", "runs-typo"], "there is no store"),
        (["label", "users", "add", "runs-typo", "ann", "--password", "long enough word"], "there is no store"),
    ],
)
def test_a_word_that_was_meant_otherwise(mistake: Callable[..., str], here: Path, words: list[str], said: str) -> None:
    assert said in mistake(*words)
    assert not (here / "runs-typo").exists()


def test_a_value_of_the_wrong_form_is_told_the_right_one(mistake: Callable[..., str], config: Path) -> None:
    text = config.read_text()
    config.write_text(text.replace("name: my\n", "name: my run\n"))
    assert "it must be letters, digits, `.`, `_` and `-`, no spaces" in mistake("check", config)
    config.write_text(text + "threads: 1000000000\n")
    assert "a whole number from 1 to 1024" in mistake("check", config)
    config.write_text(text.replace("embedded:tiny", "embedded:smolm2"))
    assert "there is no embedded model 'embedded:smolm2'" in mistake("check", config)


def test_a_fraction_is_no_whole_number(mistake: Callable[..., str], config: Path) -> None:
    for words in (("run", config, "--seeds", "1.5"), ("run", config, "--processes", "1.5")):
        assert mistake(*words) == (
            f'Invalid value for {words[2]}: unable to convert "1.5" into int; see triphase run --help'
        )
    assert 'unable to convert "2.5"' in mistake("evaluate", config, "--checkpoint", "2.5")
    told = mistake("sft", config, "--processes", "2")
    assert told.endswith("it is an option of `triphase run`; torchrun starts other commands in several processes")
    assert "--seeds 0: must lie" in mistake("run", config, "--seeds", "0.0")  # as before: a whole number
