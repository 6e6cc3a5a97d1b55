"""`triphase extend`: more iterations in place give the bytes of a run that was started with them."""

import shutil
from pathlib import Path

import pytest
from tests.runs.small_run import do, files_of, ppo_alone, settings, write_data

import triphase
from triphase.cli.main import main
from triphase.monitoring.sums import changes
from triphase.runs import pipeline
from triphase.runs.directory import RunDirectory
from triphase.settings.extension import ExtensionSettings, schedule_span
from triphase.settings.loading import load_settings
from triphase.settings.schema import RunSettings
from triphase.training.stopping import Stopped

OPTIMIZER = {"learning_rate": 3e-3, "schedule": "linear"}


def chosen(folder: Path, **ppo: object) -> RunSettings:
    """PPO alone, with a variant."""
    own = {"iterations": 2, "optimizer": OPTIMIZER, "max_approximate_kl": 0.002, **ppo}
    return ppo_alone(folder, ppo=own, variants={"other": {"kl_coefficient": 0.5}})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    do(chosen(folder), pipeline.run_all)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "small"


def weights(run: Path) -> dict[str, bytes]:
    return files_of(run, "ppo/final/*.safetensors") | files_of(run, "evaluation/*.jsonl")


@pytest.mark.parametrize("schedule", ["stretch", "restart"])
def test_an_extension_has_the_bytes_of_a_run_of_its_own(
    schedule: str, finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, policy = (run / "report.html").read_bytes(), files_of(run, "ppo/final/*.safetensors")
    variant = files_of(run, "arms/other/final/*.safetensors")
    assert main(["extend", str(run), "--ppo.iterations", "4", "--schedule", schedule]) == 0
    said = capsys.readouterr().out
    assert "ppo continues from iteration 2 to 4" in said and f"(--schedule {schedule})" in said
    extended = load_settings(run)
    assert extended.ppo_of("other").iterations == 2 and extended.ppo.iterations == 4
    assert files_of(run, "arms/other/final/*.safetensors") == variant and changes(run) == []
    assert list(files_of(run / "ppo/final-before-1", "*.safetensors").values()) == list(policy.values())
    assert (run / "evaluation-before-1/samples.jsonl").is_file() and (run / "report.html").read_bytes() != report
    whole = chosen(finished, iterations=4, extensions=[{"at": 2, "schedule": schedule}])
    whole = whole.model_copy(update={"variants": extended.variants, "name": schedule})
    do(whole, lambda each: pipeline.run_ppo(each))
    ours, theirs = (files_of(each, "ppo/final/*.safetensors") for each in (run, finished / "runs" / schedule))
    assert ours == theirs != policy


def test_what_is_broken_off_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin = run.parent / "twin"
    shutil.copytree(run, twin)
    assert main(["extend", str(twin), "--ppo.iterations", "4"]) == 0
    begun = run.parent / "begun"
    shutil.copytree(run, begun)
    (begun / "ppo/final").rename(begun / "ppo/final-before-1")  # as if killed before the configuration was written
    for path, broken in ((begun, False), (run, True)):
        if broken:
            from triphase.runs.extending import extend_run

            extend_run(run, None, 4, "stretch")
            with pytest.raises(Stopped):
                do(load_settings(run), pipeline.run_ppo, stop=True)
        assert main(["extend", str(path), "--ppo.iterations", "4"]) == 0
        assert weights(path) == weights(twin)
    late = run.parent / "late"  # every iteration is done, and the process ends before the policy or the page is written
    for gone in ("ppo/final", "report.html"):
        shutil.copytree(twin, late)
        remove = shutil.rmtree if (late / gone).is_dir() else Path.unlink
        remove(late / gone)
        capsys.readouterr()
        assert main(["extend", str(late), "--ppo.iterations", "4"]) == 0
        assert "ppo has its 4 iterations; the later steps continue" in capsys.readouterr().out
        assert weights(late) == weights(twin) and (late / "report.html").is_file()
        shutil.rmtree(late)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["extend", *words]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_refusals(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, before = str(run), files_of(run, "**/*")
    assert "has 2 iterations; give more, not 2" in refused(capsys, here, "--ppo.iterations", "2")
    assert "it must be a whole number" in refused(capsys, here, "--ppo.iterations", "many")
    assert "extend changes only iterations" in refused(capsys, here, "--ppo.epochs", "2")
    assert "of one PPO run" in refused(capsys, here)
    assert "there is no such variant; known are other" in refused(capsys, here, "--arms.none.iterations", "4")
    assert "schedule" in refused(capsys, here, "--ppo.iterations", "4", "--schedule", "again")
    with RunDirectory(load_settings(run)).held():
        assert "is held by process" in refused(capsys, here, "--ppo.iterations", "4")
    assert files_of(run, "**/*") | {".lock": b""} == before | {".lock": b""}
    assert main(["branch", here, "next", "--variants.more.epochs", "2"]) == 0
    assert f"is shared, so its checkpoints are elsewhere; extend {here}" in refused(
        capsys, str(run.parent / "next"), "--ppo.iterations", "4"
    )
    shutil.rmtree(run / "ppo/checkpoints/000002")
    assert "(kept are 1)" in refused(capsys, here, "--ppo.iterations", "4")
    assert (run / "ppo/final").is_dir()


def test_what_a_further_round_goes_on_from_is_not_extended(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "rounds" / "2").mkdir(parents=True)
    said = refused(capsys, str(run), "--ppo.iterations", "4")
    assert f"ppo of {run} is where {run / 'rounds' / '2'} continues from" in said


def test_spans() -> None:
    twice = (ExtensionSettings(at=2, schedule="restart"), ExtensionSettings(at=4, schedule="stretch"))
    assert [schedule_span(twice, 6, each) for each in range(6)] == [(0, 2), (0, 2), (2, 4), (2, 4), (2, 6), (2, 6)]
    again = (*twice[:1], ExtensionSettings(at=4, schedule="restart"))
    assert [schedule_span(again, 6, each) for each in range(6)] == [(0, 2), (0, 2), (2, 4), (2, 4), (4, 6), (4, 6)]


def test_nothing_is_set_aside_where_nobody_could_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    made = settings(tmp_path).model_dump(mode="json")
    run = triphase.train_ppo(
        "embedded:tiny",
        str(tmp_path / "prompts.jsonl"),
        reward=lambda prompts, responses: [float(len(text)) for text in responses],
        name="lent",
        output=str(tmp_path / "runs"),
        progress=False,
        ppo={name: made["ppo"][name] for name in ("batch_size", "minibatch_size", "max_response_tokens")},
        **{"ppo.iterations": 1, "model.max_length": 64, "adapters.rank": 4},
    ).path
    kept = files_of(run)
    assert main(["extend", str(run), "--ppo.iterations", "3"]) == 2
    assert "the reward of this run is a Python object" in capsys.readouterr().err
    assert files_of(run) == kept != {}


def test_a_run_without_ppo_is_not_extended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    do(chosen(tmp_path), lambda run: None)
    run = tmp_path / "runs" / "small"
    assert main(["extend", str(run), "--ppo.iterations", "9"]) == 2
    assert f"{run} has not finished ppo; run `triphase run {run}` first" in capsys.readouterr().err
