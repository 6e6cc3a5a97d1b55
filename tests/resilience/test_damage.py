"""Any single damaged file of a run ends in one line, or is mended, and nothing that a figure depends on is silent."""

import json
import os
import random
import shutil
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.runs.small_run import do, settings, write_data

from triphase.cli.main import main
from triphase.runs import pipeline

WRONG: tuple[Any, ...] = (None, True, -1, 1e38, 1e308, "x", [], {}, [[]], {"a": None}, "1", float("nan"), 2**70)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and the summary that it has."""
    folder = tmp_path_factory.mktemp("damage")
    write_data(folder)
    do(settings(folder, method="lora", variants={"other": {"kl_coefficient": 0.0}}), pipeline.run_all)
    return folder / "runs" / "small"


def files_of(run: Path) -> list[Path]:
    return sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.name != ".lock")


def altered(value: Any, draw: random.Random) -> Any:
    """``value`` with one value in it, at any depth, replaced, removed or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        if draw.random() < 0.2:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: altered(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        return [*value[:place], altered(value[place], draw), *value[place + 1 :]]
    return draw.choice(WRONG)


def damaged(content: bytes, name: str, draw: random.Random) -> bytes | None:
    """``content`` after one damage; None where the file is gone."""
    at = draw.randrange(len(content) + 1)
    if name.endswith((".json", ".jsonl")) and draw.random() < 0.5:
        try:
            if name.endswith(".json"):
                return json.dumps(altered(json.loads(content), draw)).encode()
            lines = content.splitlines()
            place = draw.randrange(len(lines))
            lines[place] = json.dumps(altered(json.loads(lines[place]), draw)).encode()
            return b"\n".join(lines) + b"\n"
        except (ValueError, IndexError):
            pass
    match draw.randrange(7):
        case 0:
            return None
        case 1:
            return b""
        case 2:
            return content[:at]
        case 3:
            return content[:at] + draw.randbytes(draw.randint(1, 64)) + content[at:]
        case 4 if content:
            place = draw.randrange(len(content))
            return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
        case 5:
            return content[: len(content) // 2 + 1]
        case _:
            return draw.choice((b"null", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe\x00", b'"x"', b"1\n", b"{}\n"))


def figures_of(run: Path) -> dict[str, Any]:
    """The summary, without what a clock and this process decide."""
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return {name: value for name, value in found.items() if name not in ("seconds", "peak_gb", "sha256")}


def outcome(command: str, run: Path, expected: dict[str, Any], capsys: Any) -> tuple[str | None, str]:
    """What is wrong with how a command ended on a damaged run, or None; and how it ended."""
    try:
        code = main([command, str(run)])
    except Exception:
        capsys.readouterr()
        return f"a traceback ({traceback.format_exc(limit=-3)})", "traceback"
    printed = capsys.readouterr()
    if code == 2:
        said = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        return (None if len(said) == 1 and "Traceback" not in printed.err else f"said {printed.err}"), "one line"
    told = any(word in printed.out + printed.err for word in ("note: ", "warning: ", " is damaged"))
    if code != 0:
        return f"ended with {code}", "code"
    silent = not told and figures_of(run) != expected
    return ("silent" if silent else None), "with a word" if told else "as before"


def fuzz(
    whole: Path,
    folder: Path,
    count: int,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    *,
    commands: tuple[str, ...] = (),
) -> Counter[tuple[str, str]]:
    """Damage a file and give the commands (report or run in turn), again and again; every tenth report is drawn."""
    from triphase.reports import page

    draw, ends, real, faults = random.Random(seed), Counter[tuple[str, str]](), page._figures, []
    names, expected = files_of(whole), figures_of(whole)
    names = [name for name in names if name.suffix not in (".safetensors",)] * 3 + names
    for number in range(count):
        run = folder / "small"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        name = draw.choice(names)
        content = damaged((run / name).read_bytes(), name.name, draw)
        if content is None:
            (run / name).unlink()
        else:
            (run / name).write_bytes(content)
        monkeypatch.setattr(page, "_figures", real if number % 10 == 0 else lambda *_: defaultdict(lambda: None))
        for command in commands or (("report", "run")[number % 2],):
            about = f"seed {seed}, damage {number} of {name} ({(content or b'')[:60]!r}), {command}"
            fault, end = outcome(command, run, expected, capsys)
            if fault is not None:
                faults.append(f"{fault}: {about}")
            ends[command, end] += 1
    assert not faults, "\n".join(faults)
    return ends


def test_a_damaged_file_is_told_or_mended(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = fuzz(whole, tmp_path, 40, 1, monkeypatch, capsys)
    assert sum(ends.values()) == 40
    assert {end for _, end in ends} == {"one line", "with a word", "as before"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_damaged_files_are_told_or_mended(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print(fuzz(whole, tmp_path, 2000, 2, monkeypatch, capsys, commands=("report", "run")))


@pytest.mark.parametrize("command", ["report", "run"])
@pytest.mark.parametrize("name", ["sums.json", "timings.json", "plan.json", "ppo/metrics.jsonl", "sft/final/extra"])
def test_a_pipe_in_a_run_is_not_waited_for(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    run = tmp_path / "small"
    shutil.copytree(whole, run)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    assert main([command, str(run)]) == 2
    assert "is a pipe, a socket or a device" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "run"])
def test_every_json_of_a_run_may_be_nested_without_end(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for number, path in enumerate(sorted(one for one in whole.iterdir() if one.suffix == ".json")):
        run = tmp_path / f"run-{number}"
        shutil.copytree(whole, run)
        (run / path.name).write_bytes(b"[" * 100_000)
        assert main([command, str(run)]) in (0, 2), path.name
        capsys.readouterr()
