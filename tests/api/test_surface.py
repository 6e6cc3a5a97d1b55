"""`import triphase` is light, has exactly the names of `__all__`, and reports mistakes in one line."""

import ast
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.imports import imports_of

import triphase
from triphase.errors import TriphaseError

SOURCE = Path(triphase.__file__).read_text(encoding="utf-8")
ROW = {"prompt": "sun", "completion": "song"}


def said_by(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_import_takes_nothing_but_the_standard_library() -> None:
    program = (
        "import sys\nbefore = set(sys.modules)\nimport triphase\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))\n"
        "print(sorted(name for name in dir(triphase) if not name.startswith('_')) == triphase.__all__)\n"
        "from triphase import errors\nprint('torch' in sys.modules, errors.TriphaseError.__module__)\n"
    )
    assert said_by(program).splitlines() == ["['triphase']", "True", "False triphase.errors"]


def test_every_public_name_is_there_typed_and_documented() -> None:
    typed = {each.name.rpartition(".")[2] for each in imports_of(SOURCE) if each.typing}
    assert typed == set(triphase.__all__) and sorted(typed) == triphase.__all__
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    for name in triphase.__all__:
        assert getattr(triphase, name).__doc__
        assert f"| `{name}" in page
    with pytest.raises(AttributeError, match="no attribute 'train'; it has Run, errors"):
        _ = triphase.train  # type: ignore[attr-defined]


def test_a_library_that_is_absent_is_named_with_the_remedy() -> None:
    program = (
        "import sys\nsys.modules['torch'] = None\nimport triphase\n"
        "try: triphase.train_sft\nexcept ModuleNotFoundError as error: print(error)\n"
    )
    assert said_by(program) == "triphase.train_sft needs the package torch; run: pip install 'triphase[train]'"


def test_no_part_of_the_room_has_code_of_a_phase() -> None:
    room = Path(triphase.__file__).parent / "api"
    for path in room.glob("*.py"):
        called = [node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        assert not {"backward", "step", "no_grad"} & set(called), path.name


def sft(rows: Any = (ROW,), **settings: Any) -> Callable[[], object]:
    return lambda: triphase.train_sft("embedded:tiny", rows, **{"name": "x", **settings})


def ppo(prompts: Any = ("sun",), reward: Any = "tests.rewards.functions:by_text", **settings: Any) -> Any:
    return lambda: triphase.train_ppo("embedded:tiny", prompts, reward=reward, name="x", **settings)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (sft(steps=3), "train_sft: steps: unknown setting"),
        (sft(name="../x"), "train_sft: name: ../x is not allowed"),
        (sft(**{"sft.epochs": 1}, sft={"epochs": 2}), "train_sft: sft: epochs is given twice"),
        (sft(sft={"epochs": float("nan")}), "train_sft: settings must be finite numbers"),
        (sft(sft={"epochs": {1}}), "train_sft: settings must be finite numbers"),
        (sft(sft={"epochs": 0}), "train_sft: sft.epochs: 0 epochs train nothing"),
        (sft(sft={"method": "none"}), "there is nothing to do for supervised fine-tuning"),
        (sft(["sun"]), "demonstrations: row 1: is str, not a mapping"),
        (sft([ROW, {"prompt": "sun", "completion": {1}}]), "demonstrations: row 2: cannot be written as JSON"),
        (sft([ROW, {"prompt": "sun"}]), ".jsonl:2: missing column: completion"),
        (sft([]), "contains no records"),
        (sft("absent.jsonl"), "absent.jsonl"),
        (sft(data={"demonstrations": []}), "train_sft: data: demonstrations is given twice"),
        (ppo(reward="nothing"), "train_ppo: reward: nothing is neither a run directory nor a function"),
        (ppo(reward="absent.module:score"), "ppo.scorer.function: absent.module:score: module absent"),
        (ppo(reward={"adress": "x"}), "train_ppo: ppo.scorer.adress: unknown setting; did you mean ppo.scorer.address"),
        (ppo(reward=lambda prompts, responses: [0.0]), "reward: "),
        (ppo(reward=lambda responses, answer: [0.0, 0.0]), "needs answer, which is neither a column"),
        (ppo([3]), "prompts: row 1: is int, not a mapping"),
        (lambda: triphase.evaluate("absent"), "absent: is not a run directory (no config.yaml in it"),
        (lambda: triphase.load_reward_model("absent"), "absent: is not a run directory"),
        (lambda: triphase.load_policy("embedded:absent"), "embedded:absent"),
        (lambda: triphase.load_policy("embedded:tiny", checkpoint=3), "only a run has checkpoints"),
    ],
)
def test_a_mistake_is_one_line_and_trains_nothing(call: Callable[[], object], line: str, here: Path) -> None:
    with pytest.raises(TriphaseError) as caught:
        call()
    told = str(caught.value)
    assert line in told and "\n" not in told
    assert not list(here.glob("runs/*/*/checkpoints"))


def test_a_policy_and_a_reward_model_refuse_what_they_cannot_take(here: Path) -> None:
    policy = triphase.load_policy("embedded:tiny")
    for call, line in (
        (lambda: policy.generate("sun"), "prompts: is a single string; give a list"),
        (lambda: policy.generate([3]), "prompts: row 1: is int"),
        (lambda: policy.generate({"prompt": ["sun"]}), "prompts: is dict, which yields the names of its columns"),
        (lambda: policy.generate(None), "prompts: is NoneType; give a list of prompts"),
        (lambda: policy.generate(["sun"], temperature=1e-300), "generate: temperature is 1e-300; it must lie between"),
        (lambda: policy.generate(["sun"], temperature=math.inf), "generate: temperature is inf; it must lie between"),
        (lambda: policy.generate([{"role": "user", "content": "sun"}]), "prompts: row 1: missing column: prompt"),
        (lambda: policy.generate(["sun"], temperature=0), "generate: temperature is 0; it must be a number above 0"),
        (lambda: policy.generate(["sun"], n=0), "generate: n is 0"),
        (lambda: policy.generate(["sun"], max_tokens=5000), "exceeds model.max_length"),
    ):
        with pytest.raises(TriphaseError, match=line):
            call()
    assert policy.generate([]) == []


class Table(list[str]):
    """As a table of pandas: what it yields are the names of its columns."""

    columns = ("prompt",)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: triphase.Run(3), r"Run: is 3 \(int\); expected a path or a name"),
        (lambda: triphase.train_sft(None, [], name="n"), r"train_sft: model: is None \(NoneType\); expected a path"),
        (lambda: triphase.train_sft("embedded:tiny", None, name="n"), "demonstrations: is NoneType; give a file"),
        (lambda: triphase.load_policy(None), r"load_policy: model: is None \(NoneType\); expected a path"),
        (lambda: triphase.load_reward_model(5), r"load_reward_model: run: is 5 \(int\); expected a path"),
        (ppo({"prompt": ["sun"]}), "prompts: is dict, which yields the names of its columns; give a list of rows"),
        (ppo(Table(["sun"])), r"prompts: is Table, which yields .* \(to_dict\('records'\) of a table of pandas\)"),
        (lambda: triphase.train_sft("embedded:tiny", [], name=None), "train_sft: name: is NoneType; give the run's"),
        (lambda: triphase.train_ppo("embedded:tiny", ["a"], reward=5, name="n"), r"train_ppo: reward: is 5 \(int\)"),
    ],
)
def test_what_is_of_another_type_is_one_line(
    call: Callable[[], object], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TriphaseError, match=problem):
        call()
    assert not list(tmp_path.iterdir())


def test_a_call_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    model = {"name": "embedded:tiny", "max_length": 64}
    unpaired = [{"prompt": "sun", "chosen": "song"}]
    runs = tmp_path / "runs"
    for call in (
        lambda: triphase.train_reward_model(model, unpaired, name="no", output=runs, progress=False),
        lambda: triphase.train_sft(model, [ROW], name="no", output=runs, progress=False, sft={"method": "none"}),
        lambda: triphase.train_ppo(
            model, ["sun", "song"], reward=lambda prompts, responses: [1 / 0], name="no", output=runs, progress=False
        ),
    ):
        with pytest.raises(TriphaseError):
            call()
        assert not runs.exists()


def test_responses_are_a_list_of_texts() -> None:
    model = triphase.load_reward_model.__globals__["RewardModel"](None, max_length=8)
    for responses, problem in (
        ("a", "responses is a single string"),
        ([None], "response 1 is NoneType; give a string"),
    ):
        with pytest.raises(TriphaseError, match=problem):
            model.score(["sun"], responses)
    for finished in (True, ["no"]):
        with pytest.raises(TriphaseError, match="score: finished: give a list of True and False"):
            model.score(["sun"], ["song"], finished=finished)
    with pytest.raises(TriphaseError, match="1 prompts, 2 responses"):
        model.score(["sun"], (text for text in ("song", "mud")))
