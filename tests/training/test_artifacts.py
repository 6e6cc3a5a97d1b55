"""The results of phases: their paths are in one file, and their manifest records the settings."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.runs import small_run
from tests.small import shared_model, stir

from triphase.errors import RunError
from triphase.models.roles import POLICY
from triphase.runs import pipeline
from triphase.runs.dependence import settings_of
from triphase.settings.phase_names import PPO, REWARD, SFT, ppo_phase
from triphase.training.artifacts import fingerprint_of, has_left, is_whole, made_by, name_of, place_of, runs_around
from triphase.training.finals import load_policy, save_policy

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"\b(sft|reward|ppo)/final\b|^/?final/?$")


def spelled(source: str) -> list[int]:
    """The lines of texts in the code, documentation left out, that spell a place of an artifact."""
    tree = ast.parse(source)
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in told
        and PLACE.search(node.value)
    ]


@pytest.mark.parametrize(
    "change", [{"place": 1e308}, {"origin": None}, {"manifest": []}, {"shared": "no"}, {"more": "x"}]
)
def test_a_note_of_what_is_taken_has_the_types_of_its_values(tmp_path: Path, change: dict[str, Any]) -> None:
    note = {"origin": "a", "place": "b", "manifest": "c", "shared": False}
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "taken.json").write_text(json.dumps(note))
    assert place_of(tmp_path, "sft") == tmp_path / "sft" / "b"
    for text in (json.dumps({**note, **change}), "[]", "[" * 100_000):
        (tmp_path / "sft" / "taken.json").write_text(text)
        with pytest.raises(RunError, match=r"taken\.json is damaged"):
            place_of(tmp_path, "sft")


def test_the_places_are_spelled_in_one_file() -> None:
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    found = {str(path.relative_to(ROOT)): spelled(path.read_text(encoding="utf-8")) for path in paths}
    assert [name for name, lines in found.items() if lines] == ["src/triphase/training/artifacts.py"]


def test_a_planted_place_is_found() -> None:
    planted = '"""Of sft/final."""\nx = run / "ppo" / "final"\ny = f"look at {run}/sft/final"\nz = "reward/final"\n'
    assert sorted(spelled(planted)) == [2, 3, 4]
    assert spelled('"""Of sft/final."""\ndef f():\n    """Of ppo/final."""\n    return "the final norm"\n') == []


def test_the_places_are_those_of_every_version(tmp_path: Path) -> None:
    assert [name_of(phase) for phase in (SFT, REWARD, PPO, ppo_phase("x"))] == [
        "sft/final",
        "reward/final",
        "ppo/final",
        "arms/x/final",
    ]
    assert ppo_phase(None) == PPO and place_of(tmp_path, SFT) == tmp_path / "sft" / "final"
    assert tmp_path in runs_around(place_of(tmp_path, SFT)) and tmp_path in runs_around(place_of(tmp_path, "arms/x"))


def test_one_without_a_fingerprint_opens(tmp_path: Path) -> None:
    shared = shared_model()
    stir(shared, POLICY)
    place = place_of(tmp_path, PPO)
    save_policy(shared, POLICY, place, with_value_head=True)
    assert "settings_sha256" not in json.loads((place / "manifest.json").read_text())
    assert is_whole(place) and has_left(tmp_path, PPO) and made_by(place) is None
    load_policy(shared, POLICY, place)
    save_policy(shared, POLICY, place, with_value_head=True, made_by="abc")
    assert is_whole(place) and made_by(place) == "abc"
    load_policy(shared, POLICY, place)


def changed(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    return {**values, head: changed(values[head], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("key", "value", "phases"),
    [
        ("seed", 7, {SFT, REWARD, PPO, "arms/x"}),
        ("sft.epochs", 9.0, {SFT}),
        ("reward.epochs", 9.0, {REWARD}),
        ("ppo.epochs", 9, {PPO, "arms/x"}),
        ("variants.x", {"kl_coefficient": 1.0}, {"arms/x"}),
        ("ppo.scorer.function", "a:b", {PPO, "arms/x"}),
        ("ppo.scorer.timeout_seconds", 1.0, set()),
        ("ppo.microbatch_tokens", 64, set()),
        ("threads", 3, set()),
        ("output", "elsewhere", set()),
        ("evaluation.shown_samples", 3, set()),
    ],
)
def test_the_fingerprint_is_of_what_the_phase_reads(tmp_path: Path, key: str, value: Any, phases: set[str]) -> None:
    made = small_run.settings(tmp_path, variants={"x": {"kl_coefficient": 0.0}})
    values = made.model_dump(mode="json")
    others = changed(values, key, value)
    moved = {
        phase
        for phase in (SFT, REWARD, PPO, "arms/x")
        if fingerprint_of(settings_of(phase, values)) != fingerprint_of(settings_of(phase, others))
    }
    assert moved == phases


def test_the_fingerprint_of_a_variant_is_that_of_the_version_that_called_it_an_arm(tmp_path: Path) -> None:
    values = small_run.settings(tmp_path, variants={"x": {"kl_coefficient": 0.0}}).model_dump(mode="json")
    read = settings_of("arms/x", values)
    assert read["arms.x.kl_coefficient"] == 0.0 and [key for key in read if key.startswith("variants")] == []


def test_a_run_leaves_it_with_each_phase(tmp_path: Path) -> None:
    small_run.write_data(tmp_path)
    run = small_run.do(small_run.settings(tmp_path, method="lora"), pipeline.run_sft)
    kept = made_by(run.artifact(SFT))
    assert kept == run.made_by(SFT) == fingerprint_of(settings_of(SFT, run.directory.settings.model_dump(mode="json")))


def test_the_fingerprint_is_the_same_in_another_place() -> None:
    here, there = ({"data.preferences": [{"path": f"{folder}/rows.jsonl"}]} for folder in ("/a", "/b/c"))
    assert fingerprint_of(here) == fingerprint_of(there)
    assert fingerprint_of(here) != fingerprint_of({"data.preferences": [{"path": "/a/other.jsonl"}]})
