"""The mutants: every kind is made, each is another program, and what tests notice is told from what they do not."""

import ast
from pathlib import Path

import pytest
from tests.mutants import __main__ as runner
from tests.mutants import touching
from tests.mutants.mutations import Mutant, mutants

SOURCE = '''"""A module."""

def f(a: int | None, b=2) -> int | None:
    """Text - 1 is no code."""
    check(a)
    if a < b and not b == 3:
        raise ValueError(f"{a + 1} is wrong")
    return min(a, -b) * 0.5 if True else torch.maximum(a, b)
'''


def test_every_kind_of_fault_is_made_and_nothing_else() -> None:
    changes = {(mutant.before, mutant.after) for mutant in mutants(SOURCE)}
    assert changes == {
        ("2", "3"), ("3", "4"), ("0.5", "1.5"), ("True", "False"), ("check(a)", "pass"), ("a < b", "a <= b"),
        ("b == 3", "b != 3"), ("a < b and (not b == 3)", "a < b or not b == 3"), ("not b == 3", "not not b == 3"),
        ("-b", "+b"), ("min(a, -b)", "max(a, -b)"), ("min(a, -b) * 0.5", "min(a, -b) / 0.5"),
        ("torch.maximum", "torch.minimum"),
        ("min(a, -b) * 0.5 if True else torch.maximum(a, b)", "min(a, -b) * 0.5 if not True else torch.maximum(a, b)"),
    }  # fmt: skip


def test_each_mutant_is_a_program_of_its_own() -> None:
    made = list(mutants(SOURCE))
    sound = ast.unparse(ast.parse(SOURCE))
    assert len({mutant.source for mutant in made} | {sound}) == len(made) + 1
    for mutant in made:
        compile(mutant.source, "mutant", "exec")
        assert 1 <= mutant.line <= 8


def test_there_are_enough_in_both_folders_and_none_of_a_list_of_names() -> None:
    modules = [path for path, _ in runner.every_mutant()]
    assert {path.parent.name for path in modules} == set(runner.FOLDERS)
    assert len(modules) >= 500 and not any(path.name == "__init__.py" for path in modules)


def test_a_module_is_tested_by_its_own_tests_first() -> None:
    names = [path.name for path in touching.tests_of("triphase.objectives.advantages")]
    assert names[0] == "test_advantages.py" and "test_worked_example.py" in names
    assert all(touching.tests_of(runner.name_of(path)) for path, _ in runner.every_mutant()[::50])


def test_a_noticed_fault_is_killed_and_an_unnoticed_one_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = touching.ROOT / "src/triphase/objectives/shapes.py"
    sound = path.read_text(encoding="utf-8")
    monkeypatch.setattr(runner, "tests_of", lambda _module: [touching.ROOT / "tests/objectives/test_shapes.py"])
    unnoticed = Mutant(1, "nothing", "a constant", sound + "\nUNUSED = 1\n")
    noticed = Mutant(1, "everything", "nothing", "")
    found = runner.survivors([(path, noticed), (path, unnoticed), (path, noticed)], workers=1)
    assert found == [(path, unnoticed)]
    assert path.read_text(encoding="utf-8") == sound
    assert capsys.readouterr().out.count("killed") == 2
