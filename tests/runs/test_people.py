"""A run with people: it waits for them, continues when they have ranked, and scores the remaining items."""

from pathlib import Path

import pytest
from tests.runs.small_run import do, settings, write_data

from triphase.cli import label
from triphase.cli.label_score import score
from triphase.errors import RunError, WaitingForPeople
from triphase.runs.pipeline import run_labeling, run_reward, run_sampling, run_sft
from triphase.store import open_store
from triphase.store.schema import assignments, items


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has stopped for people."""
    folder = tmp_path_factory.mktemp("people")
    write_data(folder)
    chosen = settings(folder, labeling={"source": "people", "overlap_share": 0.5, "required_share": 0.5})
    with pytest.raises(WaitingForPeople) as stopped:
        do(chosen, run_sft, run_sampling, run_labeling)
    said = str(stopped.value)
    assert "0 of 22 prompts have a ranking, 11 are needed, 11 are missing" in said
    assert f"`triphase label serve {folder / 'runs' / 'small'}` and open http://127.0.0.1:8400" in said
    with pytest.raises(RunError, match="has no reward model yet; run `triphase reward`"):
        score(str(folder / "runs" / "small"))
    label.simulate(str(folder / "runs" / "small"), labelers=2, gold="grammar")
    do(chosen, run_labeling, run_reward)
    return folder / "runs" / "small"


def test_the_same_command_goes_on_when_people_have_ranked(run: Path) -> None:
    assert (run / "labelling.json").is_file() and (run / "reward" / "final" / "score_head.safetensors").is_file()


def test_the_reward_model_puts_what_it_is_unsure_of_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = '{"prompt": "which color is the sky", "response": "%s", "model": "m"}\n'
    (run / "more.jsonl").write_text(
        "".join(rows.replace("sky", f"sky {n}") % f"the {word} cat" for n in range(8) for word in ("red", "old", "big"))
    )
    label.import_file(str(run), [run / "more.jsonl"])
    score(str(run))
    said = capsys.readouterr().out
    assert "90 responses scored by small" in said and "8 items that nobody has started are reordered" in said
    with open_store(run) as store:
        found = store.scores()
        assert len(found) == 90 and all(set(one) == {"small"} for one in found.values())
        with store.reading() as connection:
            waiting = items.join(assignments).select().where(assignments.c.state == "open")
            ways = {row.chosen_by for row in connection.execute(waiting)}
    assert ways == {"active", "random"}
    score(str(run))
    assert "0 responses scored by small" in capsys.readouterr().out


def test_several_runs_are_an_ensemble(run: Path, tmp_path: Path) -> None:
    twin = run.parent / "twin"
    twin.symlink_to(run)
    with pytest.raises(RunError, match="two runs have the same name"):
        score(str(run), run, twin)
    with pytest.raises(RunError, match="is not a run directory"):
        score(str(run), tmp_path)
