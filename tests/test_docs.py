"""The documentation is true: every command, setting and link in it exists, and every setting and command is in it."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from tests.settings_text import settings_from_text

from triphase.cli.main import CAMPAIGN_COMMANDS, COMMANDS, LABEL_COMMANDS, USER_COMMANDS, main
from triphase.settings.documentation import with_reference
from triphase.settings.fields import settings_fields
from triphase.settings.loading import load_settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def identity(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_links_lead_somewhere(path: Path) -> None:
    for _, target in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith(("https://", "#")):
            continue
        file = (path.parent / target.split("#")[0]).resolve()
        assert file.exists(), target


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_yaml_in_the_docs_is_a_configuration(path: Path) -> None:
    for language, text in FENCE.findall(path.read_text(encoding="utf-8")):
        if language == "yaml":
            settings_from_text(text, name=identity(path))


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_json_in_the_docs_is_json(path: Path) -> None:
    for language, text in FENCE.findall(path.read_text(encoding="utf-8")):
        if language == "json":
            json.loads(text)


def shell_lines() -> list[tuple[str, str]]:
    found = []
    for path in PAGES:
        for language, text in FENCE.findall(path.read_text(encoding="utf-8")):
            if language in ("sh", "bash", "console"):
                found += [(identity(path), line.strip()) for line in text.splitlines() if line.strip()]
    return found


@pytest.mark.parametrize(("where", "line"), shell_lines())
def test_every_command_in_the_docs_exists(where: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", page("Makefile"), re.M)
        assert next(word for word in words[1:] if "=" not in word) in targets
        return
    assert words[0] in ("triphase", "pip", ".", "tensorboard"), f"{where}: {line}"
    if words[0] == "triphase":
        options = [word.split("=")[0] for word in words if word.startswith("--") and "." not in word]
        depth = 1 if words[1] != "label" else 3 if words[2:3] in (["users"], ["campaigns"]) else 2
        command = words[1 : 1 + depth]
        assert main([*command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(option in shown for option in options), f"{where}: {line}"


def test_plans_for_a_machine_say_how_many_cards_it_has() -> None:
    """What describes a machine is refused without `--gpus`."""
    plans = [line for _, line in shell_lines() if line.startswith("triphase plan")]
    assert any("--gpus" in line for line in plans)
    for line in plans:
        assert "--gpus" in line or not re.search(r"--(memory|card|price)\b", line), line


def test_every_command_has_its_section() -> None:
    text = page("docs/commands.md")
    for name, _, _ in COMMANDS:
        assert f"\n## `triphase {name}`\n" in text
    for name, _, _ in LABEL_COMMANDS:
        assert f"\n### `triphase label {name}`\n" in text
    for name, _, _ in USER_COMMANDS:
        assert f"`{name}`" in text.partition("### `triphase label users`")[2]
    for name, _, _ in CAMPAIGN_COMMANDS:
        assert f"`{name}`" in text.partition("### `triphase label campaigns`")[2]


def test_every_section_has_its_command() -> None:
    known = {name for name, _, _ in COMMANDS} | {f"label {name}" for name, _, _ in LABEL_COMMANDS}
    assert set(re.findall(r"^##+ `triphase ([a-z ]+)`$", page("docs/commands.md"), re.M)) == known | {
        "label",
        "label users",
        "label campaigns",
    }


def section_of(title: str) -> str:
    """The text under a heading of the page of commands, up to the next heading."""
    return re.split(r"\n##+ ", page("docs/commands.md").partition(f"# `triphase {title}`\n")[2])[0]


@pytest.mark.parametrize(
    ("command", "section"),
    [(name, name) for name, _, _ in COMMANDS]
    + [(f"label {name}", f"label {name}") for name, _, _ in LABEL_COMMANDS]
    + [(f"label users {name}", "label users") for name, _, _ in USER_COMMANDS]
    + [(f"label campaigns {name}", "label campaigns") for name, _, _ in CAMPAIGN_COMMANDS],
)
def test_every_option_is_in_the_docs(command: str, section: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out.partition("\nExamples:")[0])) - {
        "--help",
        "--version",
        "--run-or-store",
    }
    missing = {option for option in options if not re.search(rf"[` ]{option}[` ]", section_of(section))}
    assert not missing


def test_the_reference_of_settings_is_current() -> None:
    text = page("docs/settings.md")
    assert with_reference(text) == text, "run: python -m triphase.settings.documentation docs/settings.md"


def test_every_setting_says_what_it_means() -> None:
    for field in settings_fields():
        assert len(field.meaning) > 1, field.name
        assert field.allowed, field.name


def test_every_setting_named_in_the_docs_exists() -> None:
    known = {field.name for field in settings_fields()}
    sections = {name.rsplit(".", depth)[0] for name in known for depth in (1, 2)}
    tops = {name.split(".")[0] for name in known if "." in name}
    for path in PAGES:
        for name in re.findall(r"`([a-z]+\.[a-z_.]+)`", path.read_text(encoding="utf-8")):
            if name.split(".")[0] in tops and not name.endswith((".py", ".md", ".html", ".json", ".jsonl", ".yaml")):
                assert name in known | sections, f"{identity(path)}: {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=identity)
def test_the_examples_are_configurations(path: Path) -> None:
    load_settings(path)


def test_the_readme_shows_the_pipeline_in_twelve_lines() -> None:
    blocks = [text for language, text in FENCE.findall(page("README.md")) if language == "yaml"]
    assert len(blocks[0].splitlines()) == 12
    assert set(yaml.safe_load(blocks[0])) > {"name", "model", "data", "sft", "sampling", "labeling", "reward", "ppo"}


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {target for _, target in LINK.findall(page("README.md"))}
    for path in (ROOT / "docs").glob("*.md"):
        assert identity(path) in linked, path.name


def test_every_page_is_in_the_contents_of_the_site() -> None:
    sections = yaml.safe_load(page("mkdocs.yml"))["nav"]
    named = [name for section in sections for pages in section.values() for name in pages]
    assert len(named) == len(set(named))
    hooks = page("deploy/docs_hooks.py")
    for name in set(named) ^ {path.name for path in (ROOT / "docs").glob("*.md")}:
        assert f'"{name}"' in hooks, name


def test_every_module_of_the_reference_exists() -> None:
    modules = re.findall(r'"triphase\.([\w.]+)"', page("deploy/docs_hooks.py"))
    assert modules and all((ROOT / "src" / "triphase" / f"{name.replace('.', '/')}.py").is_file() for name in modules)
