"""The mutants: every kind is generated, each differs from the original, and killed ones are told from survivors."""

import ast
import json
from pathlib import Path

import pytest
from tests.mutants import __main__ as runner
from tests.mutants import choosing, touching
from tests.mutants.choosing import Recorded
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
        assert 1 <= mutant.line <= 8 and mutant.line in mutant.lines
        assert mutant.when_imported == (mutant.line == 3)  # a default is made with its function
        assert ast.unparse(ast.parse(mutant.source)) == mutant.source


def test_there_are_enough_in_both_folders_and_none_of_a_list_of_names() -> None:
    modules = [path for path, _ in runner.every_mutant()]
    assert {path.parent.name for path in modules} == set(runner.FOLDERS)
    assert len(modules) >= 500 and not any(path.name == "__init__.py" for path in modules)


def test_a_module_is_tested_by_its_own_tests_first() -> None:
    names = [path.name for path in touching.tests_of("triphase.objectives.advantages")]
    assert names[0] == "test_advantages.py" and "test_worked_example.py" in names
    assert all(touching.tests_of(runner.name_of(path)) for path, _ in runner.every_mutant()[::50])


def test_the_lines_of_a_fault_are_those_of_its_statement() -> None:
    whole = "def f(a):\n    if (a <\n            2):\n        return (3 +\n            a)\n    return a\n"
    found = {mutant.after: mutant.lines for mutant in mutants(whole)}
    assert found == {
        "a <= 2": range(2, 4), "3": range(2, 4), "3 - a": range(4, 6), "4": range(4, 6),
    }  # fmt: skip


def test_those_that_execute_the_line_are_chosen_and_the_fastest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    path, test = touching.ROOT / "src/triphase/objectives/shapes.py", touching.ROOT / "tests/objectives/test_shapes.py"
    monkeypatch.setattr(choosing, "tests_of", lambda _module: [test])
    module = runner.name_of(path)
    slow, fast = Recorded("slow", 2.0, False, {module: {4, 9}}), Recorded("fast", 1.0, False, {module: {5}})
    other, away = Recorded("other", 0.1, False, {module: {7}}), Recorded("away", 0.5, True, {})
    recorded = {test: [slow, fast, other, away]}

    def names(**fault: object) -> list[str]:
        mutant = Mutant(4, "", "", str, **fault)  # type: ignore[arg-type]
        return [each.name for each in choosing.chosen(mutant, path, recorded)]

    assert names(lines=range(4, 6)) == ["fast", "slow", "away"]
    assert names(lines=range(6, 7)) == ["away"]
    assert names(lines=range(4, 6), when_imported=True) == ["other", "fast", "slow", "away"]
    monkeypatch.setattr(choosing, "_keeps", lambda _name: True)
    assert names(lines=range(4, 6)) == ["fast", "slow", "other", "away"]
    assert names(lines=range(6, 7)) == ["away"]


RECORDED = """
import subprocess
import pytest
import measured

@pytest.fixture(scope="module")
def made():
    return measured.shared()

def test_first(made): measured.own()
def test_second(made): pass
def test_third(): subprocess.run(["true"], check=True)
"""


def test_a_shared_fixture_counts_for_each_test_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text("def shared():\n    return 1\ndef own():\n    return 2\n")
    (tmp_path / "test_file.py").write_text(RECORDED)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    file = str(tmp_path / "test_file.py")
    with runner.Copy(tmp_path / "copy", ()) as copy:
        assert copy.run([file], [], 60, [tmp_path]) == 0
        found = json.loads(copy.record.read_text())
        lines = {name.split("::")[1]: each["lines"].get(str(tmp_path / "measured.py")) for name, each in found.items()}
        assert lines == {"test_first": [2, 4], "test_second": [2], "test_third": None}
        assert [each["starts_processes"] for each in found.values()] == [False, False, True]
        assert copy.run([file], ["test_file.py::test_second"], 60, [tmp_path]) == 0
        assert [*json.loads(copy.record.read_text())] == ["test_file.py::test_second"]
        assert copy.run([file], ["test_file.py::test_renamed"], 60, [tmp_path]) == 0
        assert len(json.loads(copy.record.read_text())) == 3
        (tmp_path / "measured.py").write_text("while True:\n    pass\n")
        assert copy.run([file], [], 1.0) is None


def test_a_noticed_fault_is_killed_and_an_unnoticed_one_survives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = touching.ROOT / "src/triphase/objectives/shapes.py"
    sound = path.read_text(encoding="utf-8")
    for module in (runner, choosing):
        monkeypatch.setattr(module, "tests_of", lambda _module: [touching.ROOT / "tests/objectives/test_shapes.py"])
    unnoticed = Mutant(1, "nothing", "a constant", lambda: sound + "\nUNUSED = 1\n", when_imported=True)
    never = Mutant(1, "a line", "that nobody executes", lambda: "", range(1, 2))
    executed = next(mutant.lines for mutant in mutants(sound) if not mutant.when_imported)
    noticed = Mutant(1, "everything", "nothing", lambda: "", executed)
    sample = [(path, noticed), (path, unnoticed), (path, never)]
    assert runner.survivors(sample, workers=1, libraries=["torch"]) == sample[1:]
    assert path.read_text(encoding="utf-8") == sound
    assert capsys.readouterr().out.count("killed") == 1
