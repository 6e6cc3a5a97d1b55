"""The workflow, the hooks, .ci/run and `make check` run the same commands, on the Pythons that the package names."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

import triphase

ROOT = Path(__file__).parent.parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def recipe(target: str) -> list[str]:
    found = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    assert found, f"the Makefile has no target {target}"
    return [line.strip() for line in found[1].splitlines()]


def jobs() -> dict[str, dict[str, Any]]:
    workflow = load(".github/workflows/ci.yml")
    assert set(workflow) <= {"name", True, "permissions", "concurrency", "jobs"}  # YAML 1.1 reads `on` as true
    for job in workflow["jobs"].values():
        assert set(job) <= {"runs-on", "timeout-minutes", "strategy", "env", "steps"}
    return dict(workflow["jobs"])


def runs_of(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_the_workflow_runs_what_a_person_runs() -> None:
    runs = {name: runs_of(job) for name, job in jobs().items()}
    assert runs == {"test": ["make install", "make check", ".ci/run"], "docs": ["make docs"]}
    for command in (command for own in runs.values() for command in own):
        if command.startswith("make "):
            assert re.search(rf"^{command.removeprefix('make ')}:", MAKEFILE, re.M)


def test_ci_run_is_make_test() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "exec make test"
    assert any("$(PYTEST)" in line for line in recipe("test"))


def test_the_pythons_of_the_workflow_are_those_of_the_package() -> None:
    job = jobs()["test"]
    pythons = job["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == PROJECT["requires-python"]
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert classifiers[-1] == pythons[-1] and set(pythons) <= set(classifiers)
    (docs,) = (
        step["with"]["python-version"] for step in jobs()["docs"]["steps"] if "python-version" in step.get("with", {})
    )
    assert docs == pythons[0]
    # The Makefile takes the interpreter from the environment, and the workflow names the one that was set up.
    assert all(job["env"]["PYTHON"] == "python" for job in jobs().values()) and re.search(
        r"^PYTHON \?=", MAKEFILE, re.M
    )


def test_the_workflow_uses_actions_at_a_version_and_may_only_read() -> None:
    assert load(".github/workflows/ci.yml")["permissions"] == {"contents": "read"}
    used = [step["uses"] for job in jobs().values() for step in job["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)


def test_the_hooks_are_a_part_of_make_check() -> None:
    checked = "\n".join(recipe("check")).replace("$(BIN)", ".venv/bin").replace("format --check", "format")
    hooks = [hook for part in load(".pre-commit-config.yaml")["repos"] for hook in part["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff-format", "ruff-check", "mypy"}
    for hook in hooks:
        assert {"id", "name", "entry", "language"} <= set(hook)
        assert set(hook) <= {"id", "name", "entry", "language", "types", "types_or", "pass_filenames"}
        assert hook["entry"].removesuffix(" --force-exclude") in checked


def test_issue_forms_ask_something() -> None:
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "config", "feature"]
    for form in forms:
        if form.stem == "config":
            continue
        content = yaml.safe_load(form.read_text())
        assert set(content) == {"name", "description", "labels", "body"}
        fields = [part for part in content["body"] if part["type"] != "markdown"]
        assert len({part["id"] for part in fields}) == len(fields) > 0
        assert all(part["type"] in ("input", "textarea") and part["attributes"]["label"] for part in fields)
        assert any(part.get("validations") == {"required": True} for part in fields)


def test_the_pull_request_template_names_targets_that_exist() -> None:
    text = (ROOT / ".github/pull_request_template.md").read_text()
    for target in re.findall(r"`make ([a-z-]+)`", text):
        assert recipe(target)


def test_the_citation_has_the_version_and_the_license() -> None:
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["message"] and citation["title"]
    assert citation["version"] == triphase.__version__ and citation["license"] == PROJECT["license"]
