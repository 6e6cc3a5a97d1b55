"""docs/api.md: its code runs from top to bottom with the results that the page shows, and leaves ordinary runs."""

import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import triphase
from triphase.api.keywords import settings_of
from triphase.cli.main import main
from triphase.records.types import Message, Prompt
from triphase.rewards.registry import opened
from triphase.rewards.types import Answer, ScorerContext
from triphase.settings.scorer import ScorerSettings

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)


class Page:
    """What the code of the page left behind: its names, and what it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {}
        printed = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
            for number, block in enumerate(BLOCKS):
                code = compile(block, f"{PAGE.name}, block {number}", "exec")
                exec(code, self.names)  # noqa: S102 - the page of this very repository
        self.printed = printed.getvalue()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: {0})  # a run takes one thread, as all tests do
        torch.set_num_threads(2)
        found = Page(tmp_path_factory.mktemp("page"))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    return found


@pytest.fixture
def inside(page: Page, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.chdir(page.folder)
    return page


def test_a_function_for_a_run_that_scores_otherwise_is_refused(inside: Page) -> None:
    with pytest.raises(
        triphase.errors.SettingsError, match=r"better was trained by a scorer of kind model.*leave rewar"
    ):
        triphase.evaluate("runs/better", reward=lambda prompts, responses: [0.0] * len(responses), progress=False)


def files_of(run: Path) -> dict[str, tuple[int, float]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime) for path in run.rglob("final/**/*")}


def test_the_reward_model_tells_liked_from_disliked(inside: Page) -> None:
    run = inside.names["liked"]
    assert isinstance(run, triphase.Run) and run.summary["reward_model"]["accuracy"] == 1.0
    good, bad = run.reward_model().score(["sun river"] * 2, ["sun song friend", "mud rust mud"])
    assert good > bad + 1
    with opened(ScorerContext(ScorerSettings(kind="object"), scorer_object=run.reward_model().score)) as scorer:
        prompt = Prompt("p", (Message("user", "sun river"),))
        found = scorer.score([Answer(prompt, "sun song friend", True), Answer(prompt, "mud rust mud", True)]).total
    assert found == pytest.approx((good, bad), abs=1e-5)
    assert [row["step"] for row in run.metrics("reward")] == list(range(1, len(run.metrics("reward")) + 1))


def test_ppo_is_scored_by_it_and_evaluated(inside: Page) -> None:
    run = inside.names["better"]
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    assert run.settings.reward.taken_from == str(inside.folder / "runs" / "liked")
    assert {row["policy"] for row in run.samples()} == {"sft", "ppo"}
    assert run.summary["ppo"]["proxy_gain"] is not None
    assert (inside.folder / "runs" / "better" / "report.html").is_file()


def test_a_lambda_scores_and_the_command_line_says_that_it_is_not_there(
    inside: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    run = inside.names["short"]
    assert len(run.metrics()) == 3 and run.settings.ppo.scorer.chosen == "object"
    assert all(row["ppo/proxy_score"] <= 0 for row in run.metrics())
    before = files_of(run.path)
    assert main(["run", str(run)]) == 2
    told = capsys.readouterr().err
    assert "error: ppo.scorer.kind: the reward of this run was a Python object" in told
    triphase.evaluate(run, reward=lambda prompts, responses: [-len(text) for text in responses], progress=False)
    assert all(row["score"] == -len(row["response"]) for row in run.samples())
    assert run.summary["ppo"]["scored_by"] == "a Python object"
    assert main(["run", str(run)]) == 0 and files_of(run.path) == before


def test_a_response_follows_from_seed_prompt_and_number(inside: Page) -> None:
    policy = inside.names["policy"]
    assert inside.names["responses"] == policy.generate(inside.names["asked"], temperature=0.7, seed=1)
    before = inside.names["run"].policy("sft").generate(["sun river"], n=64, seed=5)
    assert before != policy.generate(["sun river"], n=64, seed=5)
    with pytest.raises(triphase.errors.RunError, match="has no such policy; it has sft, ppo"):
        inside.names["run"].policy("other")
    both = policy.generate(["sun river", "stone road"], n=2, seed=5)
    assert len(both) == 4 and policy.generate(["stone road"], n=2, seed=5) == both[2:]
    assert policy.generate([[{"role": "user", "content": "stone road"}]], n=2, seed=5) == both[2:]
    assert policy.generate([{"prompt": "stone road"}], n=2, seed=5) == both[2:]
    again = policy.generate(["stone road"] * 2, n=2, seed=5)
    assert again[:2] == both[2:] and again[2:] != again[:2]
    assert policy.generate(["stone road"], n=2, seed=6) != both[2:]


def test_the_loop_of_ones_own_learns(inside: Page) -> None:
    assert inside.names["logits"].argmax(1).tolist() == [2, 2, 2]


def test_the_mistake_is_the_line_that_the_page_shows(inside: Page) -> None:
    shown = BLOCKS[-1].rpartition("# ")[2].strip()
    assert inside.printed.strip().splitlines()[-1] == shown
    assert not (inside.folder / "runs" / "typo").exists()


def test_rows_in_memory_are_a_data_file_of_the_run(inside: Page, capsys: pytest.CaptureFixture[str]) -> None:
    run = inside.folder / "runs" / "liked"
    (source,) = inside.names["liked"].settings.data.preferences
    assert Path(source.path).parent == run / "data"
    assert [json.loads(line) for line in Path(source.path).read_text().splitlines()] == inside.names["preferences"]
    before = files_of(run)
    assert main(["run", "runs/liked"]) == 0 and "correct on" in capsys.readouterr().out
    assert files_of(run) == before != {}


def test_the_same_call_again_trains_nothing_and_another_is_refused(inside: Page) -> None:
    names = inside.names
    before = files_of(inside.folder / "runs" / "better")
    same = {"reward": names["liked"], "name": "better", "adapters": names["adapters"], "progress": False}
    triphase.train_ppo(names["model"], names["prompts"], ppo=names["ppo"], **same)
    with pytest.raises(triphase.errors.RunError, match=r"data\.prompts .* and ppo has started with it"):
        triphase.train_ppo(names["model"], names["prompts"][:40], ppo=names["ppo"], **same)
    assert files_of(inside.folder / "runs" / "better") == before


def test_a_run_stands_for_its_directory(inside: Page) -> None:
    run = inside.names["better"]
    settings = settings_of("train_sft", {"name": "after", "model": {"name": run}, "data": {}, "sft.epochs": 1})
    assert settings.model.name == str(inside.folder / "runs" / "better") and settings.sft.epochs == 1
    assert triphase.load_policy(run).generate(["sun"], seed=1) == run.policy().generate(["sun"], seed=1)
