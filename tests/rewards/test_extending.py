"""docs/extending.md is true: its function scores, and its new kind works after one file and one line, and no more."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import triphase
from triphase.records.types import Message, Prompt
from triphase.rewards.registry import opened
from triphase.rewards.types import Answer, ScorerContext
from triphase.settings.scorer import ScorerSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M)
PROGRAM = """
import triphase
from triphase.records.types import Message, Prompt
from triphase.rewards.registry import examine, opened
from triphase.rewards.types import Answer, ScorerContext
from tests.settings_text import settings_from_text

text = "name: x\\nmodel: {name: m}\\ndata: {}\\nlabeling: {source: none}\\n"
settings = settings_from_text(text + "ppo: {scorer: {kind: words, options: {words: [yes, no]}}}").ppo.scorer
examine(settings)
with opened(ScorerContext(settings)) as scorer:
    prompt = Prompt("p", (Message("user", "well?"),))
    found = scorer.score([Answer(prompt, "yes and no and", True), Answer(prompt, "no", True)])
print(triphase.__file__, scorer.name, found.total, found.parts)
"""


def test_the_function_of_the_page_scores(tmp_path: Path) -> None:
    (tmp_path / "lengths.py").write_text(CODE[0])
    settings = ScorerSettings(function=f"{tmp_path}/lengths.py:brevity", options={"limit": 3})
    prompt = Prompt("p", (Message("user", "well?"),))
    with opened(ScorerContext(settings)) as scorer:
        found = scorer.score([Answer(prompt, "one two three", True), Answer(prompt, "no!", True)])
    assert found.total == (0.0, -3.0)
    assert found.parts == {"words": (3.0, 1.0), "shouts": (0.0, 1.0)}


def test_a_new_kind_takes_one_file_and_one_line(tmp_path: Path) -> None:
    package = tmp_path / "triphase"
    shutil.copytree(Path(triphase.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    (package / "rewards" / "words.py").write_text(CODE[1])
    registry = package / "rewards" / "registry.py"
    before = registry.read_text()
    registry.write_text(before.replace("KINDS = {\n", f"KINDS = {{\n{CODE[2]}"))
    assert registry.read_text().count("\n") == before.count("\n") + 1
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1) == [
        str(package / "__init__.py"),
        "2 words (0.5, 1.0) {'known': (2.0, 1.0)}\n",
    ]
