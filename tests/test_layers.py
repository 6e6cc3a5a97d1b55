"""A folder imports only from the layers under it, no modules import one another in a circle, torch comes in late."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.imports import cycles_of, graph_of, imported_at_start, imports_of, sources_of

from triphase.cli import deferred

PACKAGE = Path(__file__).parent.parent / "src" / "triphase"
LAYERS = (
    ("errors", "settings", "records"),
    ("tokens", "objectives"),
    ("batches", "store"),
    ("models",),
    ("training", "monitoring", "rollouts"),
    ("rewards", "footprints"),
    ("phases", "labeling", "reports"),
    ("demo",),
    ("datacheck",),
    ("planning",),
    ("runs",),
    ("cli", "api"),
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
# Inside the lowest layer: who may import whom.
WITHIN = {("settings", "errors"), ("records", "errors"), ("records", "settings")}
# Inside a folder with rooms, lowest first: a room imports only from itself and from the rooms under it.
ROOMS = {"labeling": (("quality",), ("work",), ("exchange",), ("web", "simulation"))}
# Packages that a function may import: in a module that starts without torch, what costs time or may not be installed.
LATE = {
    "alembic", "datasets", "datasketch", "huggingface_hub", "jinja2", "matplotlib", "pyarrow", "tensorboard",
    "tokenizers", "torch", "transformers", "vaderSentiment",
}  # fmt: skip
# In a module that brings torch in: peft takes two seconds, torch.distributed one, matplotlib half of one, after all
# training; the others are extras.
LATE_WITH_TORCH = {"matplotlib", "peft", "torch.distributed", "torchao", "bitsandbytes"}
# In these folders only what an extra brings that a user may leave out.
STRAIGHT = {"labeling": {"pyarrow"}}
MIXED = ("cli", "runs", "planning", "datacheck", "demo")
"""Folders that start without torch but for the modules of `WITH_TORCH`."""
WITH_TORCH = {
    "datacheck.model_check",
    "planning.evaluation_footprint",
    "planning.machine_plan",
    "planning.every_phase",
    "planning.passes",
    "planning.plan",
    "planning.rates",
    "planning.remedies",
    "planning.shortage",
    "planning.warm_up",
    "runs.abilities",
    "runs.base_model",
    "runs.best_of",
    "runs.checkpoints",
    "runs.checkpoint_selection",
    "runs.comparing",
    "runs.comparison_sums",
    "runs.conversation",
    "runs.criteria",
    "runs.evaluation",
    "runs.file_scores",
    "runs.judging",
    "runs.loop_options",
    "runs.worker_ranks",
    "runs.labeling",
    "runs.learning_curve",
    "runs.engine_choice",
    "runs.exporting",
    "runs.opening",
    "runs.human_judges",
    "runs.execution",
    "runs.phase_setup",
    "runs.pipeline",
    "runs.preflight",
    "runs.ranks",
    "runs.references",
    "runs.rounds",
    "runs.reward_gate",
    "runs.reward_training",
    "runs.result_rows",
    "runs.scoring",
    "runs.generators",
    "runs.session",
    "runs.sides",
    "runs.comparison_responses",
    "runs.resume_checks",
    "runs.reused_artifacts",
    "runs.store_samples",
    "runs.store_scores",
    "runs.verification",
}
WITHOUT_TORCH = ("errors", "settings", "records", "store", "labeling")


def folder_of(name: str) -> str | None:
    """The folder of the package that ``name`` is in; None for other packages and for the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "triphase" and len(parts) > 1 and parts[1] in HEIGHT else None


def is_allowed(importer: str, other: str) -> bool:
    return importer == other or HEIGHT[other] < HEIGHT[importer] or (importer, other) in WITHIN


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def violations(path: Path, source: str) -> list[str]:
    top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if top in ("__init__", "__main__"):
        return []
    found = []
    for each in imports_of(source):
        other = folder_of(each.name)
        if other is not None and not is_allowed(top, other):
            found.append(f"{path.relative_to(PACKAGE)}:{each.line} imports {each.name}")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_from_the_layers_under_it(path: Path) -> None:
    assert violations(path, path.read_text()) == []


def test_every_folder_has_its_layer() -> None:
    folders = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()}
    assert folders - {"__init__", "__main__"} <= set(HEIGHT)


def test_a_planted_import_upwards_is_found() -> None:
    planted = "def f():\n    from triphase.training.step import Updater\n"
    assert violations(PACKAGE / "objectives" / "proximal.py", planted) == [
        "objectives/proximal.py:2 imports triphase.training.step.Updater"
    ]
    assert violations(PACKAGE / "training" / "x.py", "import triphase.monitoring.metrics\n") != []
    assert violations(PACKAGE / "settings" / "x.py", "from triphase.records.files import fingerprint\n") != []


def room_violations(path: Path, source: str) -> list[str]:
    """Imports of a room that is higher, or at the same height."""
    folder, room, *_ = path.relative_to(PACKAGE).parts
    height = {name: height for height, names in enumerate(ROOMS.get(folder, ())) for name in names}
    if room not in height:
        return []
    found = []
    for each in imports_of(source):
        parts = each.name.split(".")
        other = parts[2] if parts[:2] == ["triphase", folder] and len(parts) > 2 else room
        if other != room and height.get(other, len(height)) >= height[room]:
            found.append(f"{path.relative_to(PACKAGE)}:{each.line} imports {each.name}")
    return found


@pytest.mark.parametrize("folder", ROOMS)
def test_a_room_imports_only_from_the_rooms_under_it(folder: str) -> None:
    paths = sorted((PACKAGE / folder).rglob("*.py"))
    assert [found for path in paths for found in room_violations(path, path.read_text())] == []
    rooms = {path.relative_to(PACKAGE / folder).parts[0] for path in paths}
    assert rooms - {"__init__.py"} == {name for names in ROOMS[folder] for name in names}


def test_a_planted_import_from_a_higher_room_is_found() -> None:
    planted = "from triphase.labeling.web import guard\n"
    path = PACKAGE / "labeling" / "work" / "plan.py"
    assert room_violations(path, planted) == ["labeling/work/plan.py:1 imports triphase.labeling.web.guard"]
    assert room_violations(PACKAGE / "labeling" / "simulation" / "x.py", planted) != []
    assert room_violations(PACKAGE / "labeling" / "web" / "x.py", planted) == []


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_torch_is_not_imported(folder: str) -> None:
    for path in modules():
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") == folder:
            heavy = [each.name for each in imports_of(path.read_text()) if each.name.split(".")[0] == "torch"]
            assert heavy == [], path


def test_what_is_torch_free_starts_where_torch_cannot_be_imported() -> None:
    names = [
        name
        for name in sources_of(PACKAGE)
        if ".migrations.versions" not in name
        and not name.endswith((".env", ".__main__"))
        and name.split(".")[1:2] != []
        and name.split(".")[1] in (*WITHOUT_TORCH, *MIXED)
        and name.removeprefix("triphase.") not in WITH_TORCH
    ]
    assert {"triphase.cli.main", "triphase.cli.phases", "triphase.runs.directory"} <= set(names)
    program = (
        "import importlib, sys\n"
        "for heavy in ('torch', 'transformers', 'peft', 'datasets'): sys.modules[heavy] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_modules_that_bring_torch_in_are_known() -> None:
    bound = imported_at_start(sources_of(PACKAGE), frozenset({"torch"}))
    names = {name.removeprefix("triphase.") for name in bound}
    assert {name for name in names if name.split(".")[0] in (*WITHOUT_TORCH, *MIXED)} == WITH_TORCH


def test_no_module_brings_in_what_training_does_not_need() -> None:
    """So PPO on a finished reward model starts sooner: figures, tables and adapters of peft come when they are used."""
    heavy = frozenset({"datasets", "matplotlib", "pandas", "peft", "pyarrow", "scipy", "sklearn", "tensorboard"})
    assert imported_at_start(sources_of(PACKAGE), heavy) == set()


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert cycles_of(graph_of(sources_of(PACKAGE))) == []


def test_a_planted_circle_is_found() -> None:
    planted = {
        "p.a": "from p import b\n",
        "p.b": "def f():\n    import p.c\n",
        "p.c": "from p.a import thing\n",
        "p.d": "from p.a import thing\n",
        "p.typed": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.user import x\n",
        "p.user": "import p.typed\n",
    }
    assert cycles_of(graph_of(planted)) == [["p.a", "p.b", "p.c"]]
    sources = sources_of(PACKAGE)
    low, high = "triphase.runs.directory", "triphase.runs.pipeline"
    with_plant = {**sources, low: sources[low] + f"\n\ndef planted():\n    import {high}\n"}
    (circle,) = cycles_of(graph_of(with_plant))
    assert {low, high} <= set(circle)


def may_be_late(name: str, importer: str, *, brings_torch: bool) -> bool:
    allowed = LATE_WITH_TORCH if brings_torch else STRAIGHT.get(importer.split(".")[1], LATE)
    return any(f"{name}.".startswith(f"{package}.") for package in allowed)


def inner_imports(sources: Mapping[str, str]) -> list[str]:
    """The imports inside functions that stand in no list above; modules of Triphase are in none."""
    bound = imported_at_start(sources, frozenset({"torch"}))
    return [
        f"{name}:{each.line} imports {each.name}"
        for name, source in sources.items()
        if ".migrations.versions" not in name
        for each in imports_of(source)
        if each.inside and not may_be_late(each.name, name, brings_torch=name in bound)
    ]


def test_modules_are_imported_at_the_top() -> None:
    assert inner_imports(sources_of(PACKAGE)) == []


def test_a_planted_import_inside_a_function_is_found() -> None:
    planted = {"triphase.runs.x": "class A:\n    async def f(self):\n        from triphase.errors import RunError\n"}
    assert inner_imports(planted) == ["triphase.runs.x:3 imports triphase.errors.RunError"]
    late = "def f():\n    import "
    assert inner_imports({"triphase.cli.deferred": f"{late}triphase.store\n"}) != []
    assert inner_imports({"triphase.runs.x": f"{late}torch\n"}) == []
    assert inner_imports({"triphase.runs.x": f"import torch\n{late}transformers\n"}) != []
    assert inner_imports({"triphase.runs.x": f"import torch\n{late}peft\n"}) == []
    assert inner_imports({"triphase.runs.x": f"{late}math\n"}) != []
    assert inner_imports({"triphase.labeling.x": f"{late}uvicorn\n"}) != []
    assert inner_imports({"triphase.labeling.x": f"{late}pyarrow\n"}) == []


def test_the_table_of_what_verbs_call_late_is_what_a_type_checker_reads() -> None:
    source = (PACKAGE / "cli" / "deferred.py").read_text()
    typed = {each.name for each in imports_of(source) if each.typing}
    assert typed == {f"triphase.{module}.{name}" for name, module in deferred.PLACES.items()}
    assert {name for name in deferred.PLACES if callable(getattr(deferred, name))} == set(deferred.PLACES)
    with pytest.raises(AttributeError, match="has no attribute 'perfrom'"):
        getattr(deferred, "perfrom")  # noqa: B009 - mypy knows that it is not there


SEALED = "triphase.training.sealed"
OPENERS = {f"triphase.training.{name}" for name in ("artifacts", "checkpoint", "checkpoint_places", "cleanup")}


def users_of(module: str, sources: Mapping[str, str]) -> set[str]:
    return {name for name, others in graph_of(sources).items() if module in others}


def test_what_phases_leave_is_opened_and_written_in_one_place() -> None:
    """Artifacts by `training/artifacts.py`, checkpoints by the others."""
    sources = sources_of(PACKAGE)
    assert users_of(SEALED, sources) == OPENERS
    planted = {**sources, "triphase.runs.x": "from triphase.training.sealed import find_damage\n"}
    assert users_of(SEALED, planted) == OPENERS | {"triphase.runs.x"}


def test_the_picture_of_the_layers_is_the_tree() -> None:
    page = (PACKAGE.parents[1] / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    picture = page.partition("## Layers")[2].split("```")[1]
    shown = re.findall(r"^(\d+) +([a-z·, ]+?)  ", picture, re.M)
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} | {"errors"}
    drawn = {name: int(height) for height, names in shown for name in names.split(" · ")}
    assert drawn == HEIGHT
    assert set(drawn) == folders
