"""Writes a commented configuration for the user's data files, which `check` and `run` accept."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from triphase.datacheck.first_configuration import (
    RunChoices,
    needs_people,
    suggested_length,
    suggested_response,
    written,
)
from triphase.datacheck.first_look import ROLES, FirstLook, first_look
from triphase.demo.embedded import PREFIX, require_embedded
from triphase.errors import SettingsError
from triphase.records.files import write_atomically
from triphase.records.lines import unread_columns
from triphase.records.source_rows import other_files_notes
from triphase.records.visible import visible
from triphase.settings.base import RUN_NAME
from triphase.settings.data import OURS
from triphase.settings.loading import settings_from
from triphase.settings.source import parse_source

MODEL = "embedded:smollm2"


def init(
    *data: Annotated[str, Parameter(help="Files, patterns, directories or hub ids; ROLE:FILE sets the role of one.")],
    to: Annotated[Path, Parameter(help="The configuration file to write.")] = Path("my-run.yaml"),
    name: Annotated[str | None, Parameter(help="Name of the run; by default that of the configuration file.")] = None,
    model: Annotated[str | None, Parameter(help="A model directory, a hub id, or an embedded model.")] = None,
    max_length: Annotated[int | None, Parameter(help="Longest prompt and response together, in tokens.")] = None,
    response_tokens: Annotated[int | None, Parameter(help="Longest sampled response, in tokens.")] = None,
    people: Annotated[bool | None, Parameter(negative=("--no-people",), help="Whether people rank responses.")] = None,
    columns: Annotated[str, Parameter(help="Names of your columns: prompt=ask,completion=reply.")] = "",
    split: Annotated[str, Parameter(help="The split of hub ids and of directories of save_to_disk.")] = "train",
    config: Annotated[str | None, Parameter(help="The configuration, or a folder, of hub ids.")] = None,
    yes: Annotated[bool, Parameter(help="Ask no questions; accept every suggestion.")] = False,
    force: Annotated[bool, Parameter(help="Overwrite an existing configuration.")] = False,
) -> None:
    """Write a commented configuration from your data files.

    Example: triphase init instructions.jsonl preferences.csv --model HuggingFaceTB/SmolLM2-135M-Instruct
    """
    if os.path.lexists(to) and not force:  # False for a name that is too long
        raise SettingsError(f"{to}: already exists; give another file with --to, or use --force")
    if not all(data or ("",)):
        raise SettingsError("init: give at least one data file, for example triphase init data/*.jsonl")
    console = Console(soft_wrap=True, highlight=False)
    renamed = _columns(columns)
    looks = [_look(text, renamed, split, config) for text in data]
    for ours, theirs in renamed.items():
        if not any(ours in look.source.columns for look in looks):
            raise SettingsError(f"--columns {ours}={theirs}: no record of {', '.join(data)[:200]} has that column")
    for line in (line for look in looks for line in _seen(look)):
        console.print(escape(visible(line)))
    ask = _Asking(yes or not sys.stdin.isatty())
    length = _positive("--max-length", max_length)
    if length is None:
        length = ask.number("Longest prompt plus response, in tokens", suggested_length(looks))
    response = _positive("--response-tokens", response_tokens)
    if response is None:
        response = ask.number("Longest response that is sampled, in tokens", suggested_response(looks, length))
    if response >= length:
        raise SettingsError(f"--response-tokens {response}: leaves no room for a prompt in --max-length {length}")
    answers = RunChoices(
        name=_run_name(name or ask.text("Name of the run", _name_of(to))),
        model=_model(model or ask.text("Model: a directory, a hub id, or embedded:smollm2", MODEL)),
        max_length=length,
        response_tokens=response,
        people=ask.truth("Should people rank responses", needs_people(looks)) if people is None else people,
    )
    _require_reward({look.role for look in looks}, answers, visible(looks[0].source.path))
    text = written(looks, answers, to)
    settings_from(parse_source(text, str(to)), None, to.absolute().parent)  # as `check` and `run` will read it
    write_atomically(to, text)
    console.print(escape(visible(f"wrote {to}\nnext    triphase check {shlex.quote(str(to))}")))


def _require_reward(roles: set[str], answers: RunChoices, file: str) -> None:
    """Refuse people without prompts whose responses they could rank, and prompts without any reward for PPO."""
    if answers.people and roles == {"demonstrations"}:
        raise SettingsError(f"people rank responses to prompts, and no file is one of prompts; add one: prompts:{file}")
    if not answers.people and "prompts" in roles and "preferences" not in roles:
        raise SettingsError(
            "without people and preferences nothing rewards the responses to the prompts: add a file of preferences, "
            "use --people, or write the configuration with a scorer yourself (docs/rewards.md)"
        )


class _Asking:
    """Questions in the terminal; quiet accepts the suggestions."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def text(self, question: str, suggested: str) -> str:
        if self._quiet:
            return suggested
        try:
            return input(f"{question} [{suggested}]: ").strip() or suggested
        except EOFError:
            raise SettingsError(f"{question}: the input ended; answer, or use --yes") from None

    def number(self, question: str, suggested: int) -> int:
        said = self.text(question, str(suggested))
        if not said.isdecimal() or int(said) < 1:
            raise SettingsError(f"{question}: {said[:40]!r} is not a whole number above 0")
        return int(said)

    def truth(self, question: str, suggested: bool) -> bool:
        said = self.text(f"{question} (yes or no)", "yes" if suggested else "no").lower()
        if said not in ("y", "yes", "n", "no"):
            raise SettingsError(f"{question}: {said[:40]!r} is neither yes nor no")
        return said.startswith("y")


def _seen(look: FirstLook) -> Iterator[str]:
    records = f"{look.seen} record{'s' * (look.seen != 1)}"
    yield f"{look.source.path}: {look.role}, {look.form} ({records} looked at)"
    if look.refused:
        yield f"  {len(look.refused)} cannot be used (data.on_bad_record: drop leaves such out): {look.refused[0]}"
    yield from (f"  {line}" for line in other_files_notes(look.source))
    yield from (f"  {line}" for line in look.remarks)
    if look.unread:
        yield f"  {unread_columns(look.unread)}; --columns renames a column"


def _look(text: str, columns: dict[str, str], split: str, config: str | None) -> FirstLook:
    role, sign, path = text.partition(":")
    if sign and role in ROLES and path:
        return first_look(path, columns, role, split, config)
    return first_look(text, columns, None, split, config)


def _columns(text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, text.split(",")):
        ours, sign, theirs = part.partition("=")
        if not sign or not ours.strip() or not theirs.strip():
            raise SettingsError(f"--columns {text[:80]}: write ours=yours, for example prompt=ask,completion=reply")
        if ours.strip() not in OURS:
            known = f"{', '.join(OURS[:13])} … (docs/data.md)"
            raise SettingsError(f"--columns {part[:80]}: the names on the left must be among {known}")
        found[ours.strip()] = theirs.strip()
    return found


def _positive(flag: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise SettingsError(f"{flag} {value}: must be above 0")
    return value


def _name_of(path: Path) -> str:
    """A run's name after its configuration's, as far as it is valid."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-")[:64] or "my-run"


def _model(name: str) -> str:
    if name.startswith(PREFIX):
        require_embedded(name)
    return name


def _run_name(text: str) -> str:
    if not re.fullmatch(RUN_NAME, text):
        raise SettingsError(f"--name {text[:80]}: use only letters, digits and . _ -, beginning with a letter or digit")
    return text
