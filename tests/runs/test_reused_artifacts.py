"""`sft.from` and `reward.from`: results of other runs are used by reference, complete, and only where they fit."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from tests.runs.small_run import do, files_of, settings, write_data

from triphase.cli.main import main
from triphase.runs import pipeline
from triphase.runs.verification import verify_run
from triphase.settings.loading import load_settings
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import place_of

REWARD = {"head_penalty": 0.1, "require_better_than_chance": False}
STEPS = (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with an SFT policy and a reward model, adapters on the embedded base."""
    folder = tmp_path_factory.mktemp("source")
    write_data(folder)
    do(settings(folder, method="lora", reward=REWARD), *STEPS)
    return folder / "runs" / "small"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after full fine-tuning, whose policy is the base of the reward model."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder)
    do(settings(folder, reward=REWARD), *STEPS)
    return folder / "runs" / "small"


def config_of(folder: Path, sft: object = None, reward: object = None, **changes: object) -> Path:
    """A settings file of PPO that reuses the given artifacts, next to its data."""
    write_data(folder)
    chosen = settings(folder, method="lora", reward=REWARD, **changes).model_dump(mode="json")
    if sft is not None:
        chosen["sft"]["from"], chosen["data"]["demonstrations"] = str(sft), []
    if reward is not None:
        chosen["reward"]["from"], chosen["labeling"]["source"] = str(reward), "auto"
    path = folder / "next.yaml"
    path.write_text(json.dumps(chosen))
    return path


def refused(config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The error of both `check` and `run`; nothing has been trained."""
    said = []
    for verb in ("check", "run"):
        assert main([verb, str(config)]) == 2
        printed = capsys.readouterr()
        assert "are valid" not in printed.out
        said.append(printed.err.strip().splitlines()[-1])
    assert said[0] == said[1]
    assert not list((config.parent / "runs").glob("small/*/checkpoints"))
    return said[0]


@pytest.mark.parametrize("kind", ["source", "whole"])
def test_ppo_on_what_another_run_has_finished(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    origin: Path = request.getfixturevalue(kind)
    config, before = config_of(tmp_path, origin, origin), files_of(origin, "**/*")
    assert main(["check", str(config)]) == 0
    assert f"supervised fine-tuning: sft.from takes it from {origin}" in " ".join(capsys.readouterr().out.split())
    assert main(["run", str(config)]) == 0
    heard = capsys.readouterr()
    assert f"the reward model: reward.from takes it from {origin}" in heard.err
    run = tmp_path / "runs" / "small"
    assert place_of(run, "sft") == (origin / "sft" / "final").resolve() and not (run / "sft" / "final").exists()
    held = sum(path.stat().st_size for path in (*run.glob("sft/**/*"), *run.glob("reward/**/*")) if path.is_file())
    assert held < 2000  # two references, no copies
    assert files_of(origin, "**/*") == before
    page = (run / "report.html").read_text()
    assert "not run yet" not in page and "holds 0 of" not in page and "Not run yet" not in page
    assert main(["run", str(config)]) == 0 and "next    triphase chat" in capsys.readouterr().out
    assert all(verdict.same for verdict in verify_run(run))


def test_a_taken_start_is_the_start_of_the_run_itself(source: Path, tmp_path: Path) -> None:
    """PPO from there gives the weights that the run's own PPO gives."""
    copy = tmp_path / "source" / "small"
    shutil.copytree(source, copy)
    assert main(["ppo", str(copy)]) == 0
    config = config_of(tmp_path, copy / "sft" / "final", copy / "reward" / "final")
    assert main(["ppo", str(config)]) == 0
    ours, theirs = (files_of(run, "ppo/final/*.safetensors") for run in (tmp_path / "runs" / "small", copy))
    assert ours == theirs != {}


def test_a_reward_model_alone_is_taken_where_nothing_is_fine_tuned(source: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, reward=source)
    assert main(["run", str(config), "--sft.method", "none"]) == 0
    assert not (tmp_path / "runs" / "small" / "sft").exists()


def test_a_hub_id(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **_: str(source / name.split("-")[-1] / "final")
    )
    monkeypatch.chdir(tmp_path)
    config = config_of(tmp_path, "someone/my-sft", "someone/my-reward")
    assert main(["ppo", str(config)]) == 0


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder / "elsewhere"))


def merged(source: Path, folder: Path) -> Path:
    assert main(["export", str(source), "--what", "reward", "--to", str(folder / "merged")]) == 0
    return folder / "merged"


def spoil(place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("damaged", "the checksum of adapter_model.safetensors differs"),
        ("no manifest", "an adapter of your own set model.adapter"),
        ("not finished", "has not finished reward; run `triphase reward"),
        ("not there", "sft.from: there is no directory"),
        ("a reward model as policy", "holds a reward model, not a policy"),
        ("a merged reward model as policy", "holds a reward model, not a policy"),
        ("a merged reward model", "is a reward model merged into its base, and the adapter is taken: give the run"),
        (
            "a classifier",
            "manifest.json is missing; a classifier of your own is a scorer (ppo.scorer.kind: classifier)",
        ),
        ("a policy as reward model", "holds a policy, not a reward model"),
        ("another base", "was trained on"),
        ("another rank", "was trained with adapters.rank 4, and here it is 8; set adapters.rank: 4"),
        ("fewer layers", "was trained with adapters.layers all, and here it is 1; set adapters.layers: all"),
        ("reward of another base", "and the base here is what sft.method: full trains here"),
    ],
)
def test_what_does_not_fit_is_refused_alike_before_the_first_step(  # noqa: C901 - one table
    case: str, told: str, source: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft: object = source
    reward: object = source
    changes: dict[str, object] = {}
    match case:
        case "damaged":
            sft = copied(source, tmp_path)
            spoil(tmp_path / "elsewhere" / "sft" / "final" / "adapter_model.safetensors")
        case "no manifest":
            sft = copied(source, tmp_path) / "sft" / "final"
            (tmp_path / "elsewhere" / "sft" / "final" / "manifest.json").unlink()
        case "not finished":
            reward = copied(source, tmp_path)
            shutil.rmtree(tmp_path / "elsewhere" / "reward" / "final")
        case "not there":
            sft = source.parent / "nowhere"
        case "a reward model as policy":
            sft = source / "reward" / "final"
        case "a merged reward model as policy":
            sft = merged(source, tmp_path)
        case "a merged reward model":
            reward = merged(source, tmp_path)
        case "a classifier":
            reward = merged(source, tmp_path)
            (tmp_path / "merged" / "manifest.json").unlink()
        case "a policy as reward model":
            reward = source / "sft" / "final"
        case "another base":
            model = {"name": str(whole / "sft" / "final"), "dtype": "float32", "max_length": 64}
            changes = {"model": model}
        case "another rank":
            changes = {"adapters": {"layers": "all", "rank": 8}}
        case "fewer layers":
            changes = {"adapters": {"layers": 1, "rank": 4}}
        case "reward of another base":
            sft = None
    config = config_of(tmp_path, sft, reward, **changes)
    if case == "reward of another base":
        values = json.loads(config.read_text())
        values["sft"]["method"] = "full"
        config.write_text(json.dumps(values))
    line = refused(config, capsys)
    assert told in line and line.startswith("error: ")
    if case == "another base":
        assert str(whole / "sft" / "final") in line and "tiny" in line.partition("trained on")[2]


def test_another_tokenizer_names_both(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from triphase.demo.tiny import tiny_directory

    base = Path(shutil.copytree(tiny_directory() / "model", tmp_path / "base"))
    elsewhere = copied(source, tmp_path)
    for phase in ("sft", "reward"):
        path = elsewhere / phase / "final" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(base)}))
        seal(path.parent)
    words = json.loads((base / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["moon"] = vocabulary.pop("sun")
    (base / "tokenizer.json").write_text(json.dumps(words))
    model = {"name": str(base), "dtype": "float32", "max_length": 64}
    line = refused(config_of(tmp_path, elsewhere, elsewhere, model=model), capsys)
    assert "the tokenizer of" in line and str(base) in line and str(elsewhere) in line


def seal(place: Path) -> None:
    """Bring the sums of a directory up to date, as if its phase had left it so."""
    from triphase.records.files import fingerprint

    manifest = json.loads((place / "manifest.json").read_text())
    manifest["sha256"] = {name: fingerprint(place / name) for name in manifest["sha256"]}
    (place / "manifest.json").write_text(json.dumps(manifest))


def test_what_has_changed_since_is_not_used(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = copied(source, tmp_path)
    config = config_of(tmp_path, elsewhere, elsewhere)
    assert main(["ppo", str(config)]) == 0
    readme = elsewhere / "sft" / "final" / "README.md"
    readme.write_text("another")
    seal(readme.parent)
    capsys.readouterr()
    assert main(["evaluate", str(config)]) == 2
    assert "is not what this run started with" in capsys.readouterr().err


def test_before_ppo_begins_it_may_be_changed_and_afterwards_not(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = copied(source, tmp_path)
    config = config_of(tmp_path, source, source)
    run = tmp_path / "runs" / "small"
    assert main(["ppo", str(config), "--ppo.scorer.function", "tests.rewards.broken:missing"]) == 2
    assert main(["ppo", str(config), "--sft.from", str(elsewhere)]) == 0
    assert place_of(run, "sft") == elsewhere / "sft" / "final"
    capsys.readouterr()
    assert main(["ppo", str(config)]) == 2
    assert "sft.from is " in (said := capsys.readouterr().err) and "ppo has started with it" in said


def test_what_cannot_be_changed_names_the_run_that_can(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = copied(source, tmp_path)
    assert main(["ppo", str(elsewhere)]) == 0
    capsys.readouterr()
    assert main(["ppo", str(elsewhere), "--ppo.epochs", "2"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "ppo.epochs is 1 there and 2 here, and ppo has started with it; set ppo.epochs back" in line
    assert line.endswith(f"triphase branch {elsewhere} NAME --ppo.epochs 2")
    assert main(["ppo", str(elsewhere), "--ppo.epochs", "2", "--ppo.kl-target", "6"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "and ppo has started with them; set them back, or" in line
    options = line.partition(" NAME ")[2]
    assert main(["branch", str(elsewhere), "both", *shlex.split(options)]) == 0
    both = load_settings(tmp_path / "both").ppo
    assert both.epochs == 2 and both.kl_target == 6
    assert main(["branch", str(elsewhere), "second", "--ppo.epochs", "2"]) == 0
    assert place_of(tmp_path / "second", "sft") == elsewhere / "sft" / "final"


def test_from_is_a_setting_like_others(tmp_path: Path) -> None:
    values = {"name": "a", "model": {"name": "m"}, "data": {}, "sft": {"from": "x"}}
    chosen = RunSettings.model_validate(values)
    assert chosen.sft.taken_from == "x" and chosen.model_dump()["sft"]["from"] == "x"
    assert chosen.sft_method == "taken" and chosen.reward.taken_from is None


@pytest.mark.parametrize(("layers", "fits"), [("all", True), (10, True), (2, True), (1, False)])
def test_more_layers_than_there_are_is_all_of_them_here_too(
    layers: str | int, fits: bool, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, sft=source, reward=source, adapters={"layers": layers, "rank": 4})
    assert (main(["check", str(config)]) == 0) == fits, capsys.readouterr().err
