"""Relative paths in the settings: relative to the directory of the settings file."""

import os
import stat
from pathlib import Path
from typing import Any

from triphase.errors import SettingsError

FILE_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".zst")


def anchor_paths(values: dict[str, Any], base: Path) -> None:
    """Make relative paths of data files, a model directory and a function's file absolute; hub ids are unchanged."""
    data = values.get("data")
    for sources in data.values() if isinstance(data, dict) else ():
        for source in sources if isinstance(sources, list) else ():
            if isinstance(source, dict) and isinstance(source.get("path"), str):
                source["path"] = _anchored(source["path"], base, file=True)
    variants = values.get("variants")
    for ppo in (values.get("ppo"), *(variants.values() if isinstance(variants, dict) else ())):
        anchor_scorer(ppo.get("scorer") if isinstance(ppo, dict) else None, base)
    _anchor_program(values.get("rollouts"), base)
    for name, keys in (("model", ("name", "adapter", "trust_remote_code")), ("sft", ("from",)), ("reward", ("from",))):
        section = values.get(name)
        if name == "model" and isinstance(section, dict) and isinstance(section.get("chat_template"), str):
            section["chat_template"] = _template(section["chat_template"], base)
        if not isinstance(section, dict):
            continue
        for key in keys:
            if isinstance(section.get(key), str):
                section[key] = _anchored(section[key], base, file=False)


def anchor_scorer(scorer: Any, base: Path) -> None:
    """Make the path of a function's file, or of a classifier, absolute; modules and hub ids are unchanged."""
    parts = scorer.get("of") if isinstance(scorer, dict) else None
    for part in parts if isinstance(parts, list) else ():
        anchor_scorer(part, base)
    options = scorer.get("options") if isinstance(scorer, dict) else None
    if isinstance(options, dict) and scorer.get("kind") == "classifier" and isinstance(options.get("model"), str):
        options["model"] = _anchored(options["model"], base, file=False)
    name = scorer.get("function") if isinstance(scorer, dict) else None
    place, sign, function = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    if place.endswith(".py") and "\0" not in place:
        scorer["function"] = f"{absolute(base / expanded(place))}{sign}{function}"


def _template(text: str, base: Path) -> str:
    """The text of a chat template that is given as a file."""
    if text in ("chatml", "plain") or "{%" in text or "{{" in text or "\0" in text:
        return text
    path = base / expanded(text)
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise SettingsError(
                f"model.chat_template: {text[:80]}: is a pipe or a device; write the template to a file"
            )
        found = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise SettingsError(
            f"model.chat_template: {text[:80]}: {reason}; write chatml, plain, or the path of a Jinja template"
        ) from None
    if "{%" not in found and "{{" not in found:
        raise SettingsError(f"model.chat_template: {text[:80]}: has no {{{{ … }}}}, so it is not a Jinja template")
    return found


def _anchor_program(rollouts: Any, base: Path) -> None:
    """Make the path of vLLM's Python absolute; a bare name is looked up in PATH when it is started."""
    text = rollouts.get("python") if isinstance(rollouts, dict) else None
    if isinstance(text, str) and "\0" not in text and ("/" in text or text.startswith("~")):
        rollouts["python"] = str(absolute(base / expanded(text)))


def _anchored(text: str, base: Path, file: bool) -> str:
    if text.startswith("~"):
        return str(expanded(text))
    if ("://" if file else ":") in text or not text or "\0" in text:
        return text
    named = text.endswith(FILE_SUFFIXES) or any(sign in text for sign in "*?[")
    explicit = text.startswith(("./", "../")) or (file and named)
    return str(absolute(base / text)) if explicit or os.path.exists(base / text) else text


def absolute(path: Path) -> Path:
    """``path`` as an absolute path, without `.` and `..`, and with the same target.

    A `..` after a symbolic link is the parent of the link's target, and not of the link.
    """
    plain = os.path.abspath(path)
    real = os.path.realpath(path)
    return Path(plain if os.path.realpath(plain) == real else real)


def expanded(text: str) -> Path:
    """``text`` as a path, with the home directory of its user instead of ``~``.

    Raises:
        SettingsError: there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        name = text.split("/")[0][:40]
        raise SettingsError(f"{text[:80]}: there is no home directory of {name} here; write the whole path") from None
