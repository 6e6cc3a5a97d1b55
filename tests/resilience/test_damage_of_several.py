"""Damage inside runs that belong together (rounds, a sweep, a study), one file at a time.

The same promise as for one run (`test_damage`): one line, repaired, or reported; no metric changes silently.
"""

import json
import random
import re
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.resilience.test_damage import damaged, files_of
from tests.runs.small_run import ppo_alone, settings, write_data

from triphase.cli.main import INTERRUPTED, main

_SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
_OF_A_CLOCK = ("seconds", "peak_gb", "begun", "sha256")
EVALUATION = {"gold": "grammar", "samples_per_prompt": 1, "max_prompts": 2}


@dataclass(frozen=True, slots=True)
class Several:
    """Runs that belong together.

    Attributes:
        folder: what is copied and damaged; below it is ``damaged``, the directory whose files are.
        command: what is given again after a damage, in the copy.
        figures: what it shows then.
    """

    folder: Path
    damaged: str
    command: Callable[[Path], list[str]]
    figures: Callable[[Path], Any]


def summaries(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): _timeless(json.loads(path.read_text()))
        for path in sorted(folder.rglob("summary.json"))
    }


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _OF_A_CLOCK}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def drawn(page: Path) -> list[str]:
    return _SVG.findall(page.read_text(encoding="utf-8"))


def rounds(folder: Path) -> Several:
    chosen = settings(folder, rounds=2, evaluation=EVALUATION)
    (folder / "c.yaml").write_text(json.dumps(chosen.model_dump(mode="json")))
    assert main(["run", str(folder / "c.yaml")]) == 0
    return Several(folder, "runs/small", lambda here: ["run", str(here / "runs" / "small")], summaries)


def sweep(folder: Path) -> Several:
    chosen = ppo_alone(folder, ppo={"iterations": 1}, evaluation=EVALUATION)
    (folder / "c.yaml").write_text(json.dumps(chosen.model_dump(mode="json")))
    assert main(["run", str(folder / "c.yaml")]) == 0
    words = ["--ppo.epochs", "1,2", "--name", "grid"]
    assert main(["sweep", str(folder / "runs" / "small"), *words]) == 0

    def figures(here: Path) -> Any:
        grid = here / "runs" / "grid"
        return summaries(grid), drawn(grid / "sweep.html")

    return Several(folder, "runs/grid", lambda here: ["sweep", str(here / "runs" / "small"), *words], figures)


def study(folder: Path) -> Several:
    chosen = ppo_alone(folder, ppo={"iterations": 2}, evaluation=EVALUATION)
    (folder / "c.yaml").write_text(json.dumps(chosen.model_dump(mode="json")))
    words = ["--seeds", "2", "--best-of", "4", "--variants", "none,kl"]
    assert main(["study", str(folder / "c.yaml"), *words]) == 0

    def figures(here: Path) -> Any:
        place = here / "runs" / "small-study"
        return json.loads((place / "study.json").read_text()), drawn(place / "study.html")

    return Several(folder, "runs/small-study", lambda here: ["study", str(here / "runs" / "small"), *words], figures)


KINDS = {"rounds": rounds, "sweep": sweep, "study": study}
MANY = {"rounds": 30, "sweep": 60, "study": 60}  # a damaged round costs several seconds


@pytest.fixture(scope="module")
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Several:
    folder = tmp_path_factory.mktemp(request.param)
    write_data(folder)
    return KINDS[request.param](folder)


def outcome(several: Several, here: Path, expected: Any, capsys: Any) -> tuple[str | None, str]:
    """What is wrong with how the command ended, or None; and how it ended."""
    try:
        code = main(several.command(here))
    except Exception:
        capsys.readouterr()
        return f"a traceback ({traceback.format_exc(limit=-3)})", "traceback"
    printed = capsys.readouterr()
    said = printed.out + printed.err
    if code == INTERRUPTED:  # whoever ends the tests is heard by the run first
        raise KeyboardInterrupt
    if code == 2:
        lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        return (None if len(lines) == 1 and "Traceback" not in said else f"said {printed.err}"), "one line"
    if code == 1:
        return (None if re.search(r"^failed  \S+: ", said, re.M) else f"ended with 1: {said[-500:]}"), "one failed"
    if code != 0:
        return f"ended with {code}", "code"
    told = any(word in said for word in ("note: ", "warning: ", " is damaged"))
    silent = not told and several.figures(here) != expected
    return ("silent" if silent else None), "with a word" if told else "as before"


def fuzz(several: Several, folder: Path, count: int, seed: int, capsys: Any) -> Counter[str]:
    draw, ends, faults = random.Random(seed), Counter[str](), list[str]()
    capsys.readouterr()
    here = folder / "here"
    shutil.copytree(several.folder, here)
    assert main(several.command(here)) == 0
    expected = several.figures(here)
    names = [name for name in files_of(here / several.damaged) if name.suffix != ".safetensors"]
    for number in range(count):
        shutil.rmtree(here)
        shutil.copytree(several.folder, here)
        name = draw.choice(names)
        path = here / several.damaged / name
        content = damaged(path.read_bytes(), name.name, draw)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        fault, end = outcome(several, here, expected, capsys)
        if fault is not None:
            faults.append(f"{fault}: seed {seed}, damage {number} of {name} ({(content or b'')[:60]!r})")
        ends[end] += 1
    assert not faults, "\n".join(faults)
    return ends


@pytest.mark.parametrize(
    "several", [pytest.param(kind, marks=() if kind == "sweep" else pytest.mark.slow) for kind in KINDS], indirect=True
)
def test_a_damaged_file_of_one_of_several_runs_is_told_or_mended(
    several: Several, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sum(fuzz(several, tmp_path, 4, 3, capsys).values()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("several", KINDS, indirect=True)
def test_many_damaged_files_of_several_runs_are_told_or_mended(
    several: Several, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    ends = fuzz(several, tmp_path, MANY[request.node.callspec.params["several"]], 4, capsys)
    assert {"one line", "with a word", "as before"} <= ends.keys() | ({"one line"} if "one failed" in ends else set())
