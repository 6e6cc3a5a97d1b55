"""What the site has besides docs/: the README as its first page, files of the repository that pages link to, the API.

MkDocs calls the functions by their names (`hooks` in mkdocs.yml).
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
SHOWN = ("examples/*.yaml", "examples/*.py", "LICENSE")
_UP = re.compile(r"(\]\()\.\./")
_DOWN = re.compile(r"(\]\()docs/")
_MODULES = {
    "Phases": "triphase.api.training",
    "Runs": "triphase.api.run",
    "Policies": "triphase.api.policy",
    "Reward models": "triphase.api.reward_model",
    "Advantages": "triphase.objectives.advantages",
    "The policy's and the critic's loss": "triphase.objectives.proximal",
    "Preferences": "triphase.objectives.preference",
    "Divergence": "triphase.objectives.divergence",
    "Log-probabilities": "triphase.objectives.logprobs",
    "Supervised loss": "triphase.objectives.supervised",
    "Masks": "triphase.objectives.masking",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and files that stand outside docs/."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=_DOWN.sub(r"\1", readme)))
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=_DOWN.sub(r"\1", text)))
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    files.append(File.generated(config, "reference.md", content=reference()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What stands above docs/ in the repository stands beside the pages here."""
    return _UP.sub(r"\1", markdown)


def reference() -> str:
    """The page of the API, which mkdocstrings fills from the code."""
    parts = [f"## {title}\n\n::: {module}\n    options: {{show_root_heading: false, show_root_toc_entry: false}}\n"
             for title, module in _MODULES.items()]  # fmt: skip
    return "# API\n\nWritten from the code. [Python](api.md) shows how it is used.\n\n" + "\n".join(parts)
