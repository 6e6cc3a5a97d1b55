"""What would stop a run later is reported before its first step, by file and line, and `check` reports the same."""

import json
import re
import sys
import traceback
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tests.runs import small_run
from tests.runs.refusals import PACKAGE, SHOWN, judged, judgment_of, refusing_functions
from tests.runs.small_run import settings
from tests.small import tokenizer

from triphase.cli import main as cli
from triphase.cli.main import main
from triphase.rewards.registry import KINDS, ScorerKind
from triphase.runs.preflight import examine_run

STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture(scope="module")
def strict_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a template that takes no system message and no two turns of one role."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("strict")
    words = tokenizer(STRICT, extra=("sun", "song", "mud", "road", "tree", "rain"))
    words.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def adapter_of(model: Path, folder: Path) -> Path:
    """A directory as peft leaves it, of an adapter without weights."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "base_model_name_or_path": str(model)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"layer": torch.zeros(1)}, folder / "adapter_model.safetensors")
    return folder


def turns(*roles_and_words: str) -> list[dict[str, str]]:
    return [
        {"role": role, "content": word} for role, word in zip(roles_and_words[::2], roles_and_words[1::2], strict=True)
    ]


def written(folder: Path, changes: dict[str, Any]) -> Path:
    """A settings file of a small run with changes; their relations are not checked."""
    values = settings(folder, method="lora").model_dump(mode="json")
    for name, value in changes.items():
        section, _, key = name.partition(".")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def refusals(config: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The errors of `check` and `run` for a configuration, both with exit code 2 and without a traceback."""
    found = []
    for command in ("check", "run"):
        assert main([command, str(config)]) == 2, command
        printed = capsys.readouterr()
        assert "are valid" not in printed.out
        found.append(printed.err.strip().splitlines()[-1])
    run = Path(yaml.safe_load(config.read_text())["output"]) / "small"
    assert not (run / "sft" / "metrics.jsonl").exists(), "a step was done before the refusal"
    return found


GOOD = [{"prompt": f"sun {word}", "completion": "song tree"} for word in ("song", "mud", "road", "tree", "rain", "sun")]
ASKED = [
    {"prompt": f"mud {word}", "split": "heldout" if word == "sun" else "train"} for word in ("song", "road", "sun")
]
PAIRS = [{**row, "chosen": "song", "rejected": "mud"} for row in ASKED]
SYSTEM = turns("system", "rain", "user", "sun")


def case(name: str, folder: Path, model: Path) -> tuple[dict[str, Any], str]:  # noqa: C901 - one table
    """The change that causes a refusal, and the message of both commands."""
    d, p, c = folder / "d.jsonl", folder / "p.jsonl", folder / "c.jsonl"
    lines(d, GOOD), lines(p, ASKED), lines(c, PAIRS)
    plain = {
        "model": {"name": str(model), "dtype": "float32", "max_length": 64},
        "data": {"demonstrations": [{"path": str(d)}], "prompts": [{"path": str(p)}]},
    }

    def data(**roles: list[Path] | Path) -> dict[str, Any]:
        named = {role: [{"path": str(path)} for path in ([paths] if isinstance(paths, Path) else paths)]
                 for role, paths in roles.items()}  # fmt: skip
        return {**plain, "data": {**plain["data"], **named}}

    imported = {"labeling": {"source": "none"}}
    match name:
        case "template refuses a demonstration":
            lines(d, [*GOOD, {"messages": turns("user", "sun", "user", "mud", "assistant", "song")}])
            return plain, "d.jsonl:7: .*rejects a conversation of user, user"
        case "template refuses a demonstration that begins with the assistant":
            lines(d, [*GOOD, {"messages": turns("assistant", "song", "user", "mud", "assistant", "song")}])
            return plain, "d.jsonl:7: .*roles must alternate"
        case "template refuses a prompt":
            lines(p, [*ASKED, {"prompt": SYSTEM}])
            return plain, "p.jsonl:4: .*no system role"
        case "template refuses a comparison":
            lines(c, [*PAIRS, {**PAIRS[0], "prompt": SYSTEM}])
            return data(preferences=c) | imported, "c.jsonl:4: .*no system role"
        case "ids shared by two files":
            q = folder / "q.jsonl"
            lines(p, [{"id": 0, **ASKED[0]}, {"id": 1, **ASKED[2]}]), lines(q, [{"id": 0, "prompt": "road road"}])
            return data(prompts=[p, q]), r"q.jsonl:1: the id '0' is already used by another prompt \(.*p.jsonl:1\)"
        case "ids shared by prompts and preferences":
            lines(p, [{"id": "a", **ASKED[0]}, ASKED[2]])
            lines(c, [{"prompt_id": "a", **PAIRS[1]}])
            return data(preferences=c) | imported, "c.jsonl:1: the id 'a' is already used by another prompt"
        case "a demonstration is too long":
            lines(d, [*GOOD, {"prompt": "sun", "completion": "song " * 70}])
            return plain, "d.jsonl:7: .*model.max_length = 64"
        case "a prompt is too long":
            lines(p, [*ASKED, {"prompt": "sun " * 60}])
            return plain, "p.jsonl:4: .*with 10 for the response it exceeds model.max_length = 64"
        case "a comparison is too long":
            lines(c, [*PAIRS, {"prompt": "sun", "chosen": "song " * 70, "rejected": "mud"}])
            return data(preferences=c) | imported, "c.jsonl:4: .*model.max_length = 64"
        case "no room for any prompt":
            return {**plain, "ppo.max_response_tokens": 64}, "ppo.max_response_tokens: 64 tokens .* leave none"
        case "no prompt held out":
            lines(p, ASKED[:2])
            return plain, "none of the 2 prompts is held out: nothing can be evaluated"
        case "all prompts held out":
            lines(p, ASKED[2:])
            return plain, "all 1 prompts are held out"
        case "no comparison held out":
            lines(c, PAIRS[:2])
            return data(prompts=[], preferences=c) | imported, "none of the 2 prompts is held out"
        case "all comparisons held out":
            lines(c, PAIRS[2:])
            return data(prompts=[], preferences=c) | imported, "all 1 prompts are held out"
        case "all demonstrations held out":
            lines(d, [{**row, "split": "heldout"} for row in GOOD])
            return plain, "d.jsonl: has no demonstration to train on"
        case "no data at all":
            return data(demonstrations=[], prompts=[]) | {"labeling": {"source": "auto"}}, "there are no prompts"
        case "a scorer and no prompts":
            scorer = {"ppo.scorer": {"function": "tests.rewards.functions:lengths"}, "labeling": {"source": "auto"}}
            return data(prompts=[]) | scorer, "there are no prompts"
        case "no prompts":
            return data(prompts=[]), "there are no prompts"
        case "no preferences":
            return plain | imported, "labeling.source is none and data.preferences is empty"
        case "no such file":
            return data(prompts=folder / "none.jsonl"), "none.jsonl: there is no such file"
        case "no such model":
            return {**plain, "model": {"name": str(folder / "nothing")}}, "model.name: .*nothing"
        case "no such embedded model":
            return {**plain, "model": {"name": "embedded:smolm2"}}, "there is no embedded model 'embedded:smolm2'"
        case "a scorer's token is not set":
            scorer = {"address": "https://nowhere.example/score", "token_variable": "NOT_SET_ANYWHERE"}
            return {**plain, "ppo.scorer": scorer}, "token_variable names NOT_SET_ANYWHERE, which is not set"
        case "a variant's scorer's token is not set":
            scorer = {"address": "https://nowhere.example/score", "token_variable": "NOT_SET_ANYWHERE"}
            return {**plain, "variants": {"other": {"scorer": scorer}}}, "token_variable names NOT_SET_ANYWHERE"
        case "a server's token is not set":
            servers = {"addresses": ["https://nowhere.example"], "token_variable": "NOT_SET_ANYWHERE"}
            return {**plain, "rollouts": servers}, "rollouts.addresses: token_variable names NOT_SET_ANYWHERE"
        case "a server is away":
            servers = {"addresses": ["http://127.0.0.1:9"], "retries": 0}
            return {**plain, "rollouts": servers}, "rollouts.addresses: .*/health cannot be reached"
        case "an unknown setting":
            return {**plain, "ppo.iteration": 3}, "ppo.iteration: unknown setting; did you mean"
        case "a value that is not allowed":
            return {**plain, "ppo.iterations": 0}, "ppo.iterations: 0 is not allowed"
        case "no such tracker":
            return {**plain, "trackers": ["mlflow"]}, "trackers: mlflow is not installed"
        case "a critic that starts from an absent reward model":
            critic = {"scorer": {"kind": "own"}, "critic": "adapter", "critic_start": "reward"}
            return {**plain, "variants": {"other": critic}}, r"variants.other.critic_start: reward needs a reward model"
        case "servers and a model that is merged":
            values = {**plain["model"], "name": str(adapter_of(model, folder / "adapter"))}
            return {**plain, "model": values, "rollouts": {"servers": 1}}, "servers need the files of the merged model"
        case "a damaged line":
            p.write_text(p.read_text() + '{"prompt": "sun')
            return plain, "p.jsonl:4: "
        case "a witness and one prompt":
            lines(c, [PAIRS[0], PAIRS[0], PAIRS[2]])
            return data(prompts=[], preferences=c) | imported | {"reward.witness": True}, "witness needs prompts of its"
        case "no such layers":
            return {
                **plain,
                "adapters.targets": ["nothing"],
            }, "adapters.targets has nothing, which the model's layers do"
        case "an SFT policy from nowhere":
            return {**plain, "sft.from": str(folder / "nowhere")}, "sft.from: there is no directory .*nowhere"
        case "a reward model from nowhere":
            return {**plain, "reward.from": str(model)}, "reward.from: .*strict.* is not the intact result of a phase"
        case "no such function":
            return {**plain, "ppo.scorer": {"function": "nothing_here.py:score"}}, "the file .*nothing_here.py does not"
        case "a function that raises":
            return {**plain, "ppo.scorer": {"function": "tests.rewards.functions:raises_on_many"}}, "raises_on_many"
        case "a judge without an address":
            judge = {"kind": "judge", "options": {"model": "m", "rubric": "r"}}
            return {**plain, "ppo.scorer": judge}, "ppo.scorer.address: is missing; kind judge needs it"
        case "no such kind of scorer":
            return {**plain, "ppo.scorer": {"kind": "modell"}}, "'modell' is not a kind of scorer; did you mean model"
        case "a run in a file's place":
            (folder / "runs").mkdir()
            (folder / "runs" / "small").write_text("")
            return plain, "runs/small: is not a directory"
    raise AssertionError(name)


CASES = [
    "template refuses a demonstration",
    "template refuses a demonstration that begins with the assistant",
    "template refuses a prompt",
    "template refuses a comparison",
    "ids shared by two files",
    "ids shared by prompts and preferences",
    "a demonstration is too long",
    "a prompt is too long",
    "a comparison is too long",
    "no room for any prompt",
    "no prompt held out",
    "all prompts held out",
    "no comparison held out",
    "all comparisons held out",
    "all demonstrations held out",
    "no data at all",
    "a scorer and no prompts",
    "no prompts",
    "no preferences",
    "no such file",
    "no such model",
    "no such embedded model",
    "a scorer's token is not set",
    "a variant's scorer's token is not set",
    "a server's token is not set",
    "a server is away",
    "an unknown setting",
    "a value that is not allowed",
    "no such tracker",
    "a critic that starts from an absent reward model",
    "servers and a model that is merged",
    "a damaged line",
    "a witness and one prompt",
    "no such layers",
    "an SFT policy from nowhere",
    "a reward model from nowhere",
    "no such function",
    "a function that raises",
    "a judge without an address",
    "no such kind of scorer",
    "a run in a file's place",
]


@pytest.mark.parametrize("name", CASES)
def test_check_and_run_refuse_alike_before_the_first_step(
    name: str,
    tmp_path: Path,
    strict_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes, wanted = case(name, tmp_path, strict_model)
    monkeypatch.setitem(KINDS, "own", ScorerKind("tests.rewards.own_kind"))
    places: list[str] = []
    told = cli._mistake

    def noting(message: str) -> int:
        places.append(place_of(sys.exc_info()[2]))
        return told(message)

    monkeypatch.setattr(cli, "_mistake", noting)
    checked, ran = refusals(written(tmp_path, changes), capsys)
    for line in (checked, ran):
        assert line.startswith("error: ")
        assert re.search(wanted, line), line
    shown = judgment_of(places[-1])  # where `run` refused it: what this case shows
    assert shown in SHOWN and name in SHOWN[shown][0], (places[-1], shown)


def place_of(trace: TracebackType | None) -> str:
    """The function of Triphase that raised, by module and name."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(trace) if str(PACKAGE) in frame.f_code.co_filename]
    module = Path(frames[-1].co_filename).relative_to(PACKAGE).with_suffix("")
    return f"{str(module).replace('/', '.')}.{frames[-1].co_qualname}"


def test_every_refusal_of_run_is_judged() -> None:
    """A new one needs a case here, or a reason in `refusals` why `check` cannot know."""
    found = refusing_functions()
    assert [name for name in sorted(found) if judgment_of(name) is None] == []
    gone = [name for name in judged() if not any(fnmatch(each, name) for each in found)]
    assert gone == [], "no longer refuses anything"
    shown = {case for cases, _ in SHOWN.values() for case in cases}
    files = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert shown - files == set(CASES)


@pytest.mark.parametrize("method", ["lora", "none"])
def test_without_demonstrations_check_and_run_agree(
    method: str, tmp_path: Path, strict_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, _ = case("no prompt held out", tmp_path, strict_model)
    lines(tmp_path / "p.jsonl", ASKED)
    if method == "lora":
        changes = {**changes, "data": {**changes["data"], "demonstrations": []}}
    config = written(tmp_path, {**changes, "sft.method": method})
    assert main(["check", str(config)]) == 0
    checked = capsys.readouterr().out
    why = "sft.method is none" if method == "none" else "data.demonstrations is empty"
    assert f"left out: supervised fine-tuning: {why}" in checked and "are valid" in checked
    assert main(["plan", str(config)]) == 0
    assert " sft " not in capsys.readouterr().out
    assert main(["run", str(config)]) == 0
    run = tmp_path / "runs" / "small"
    assert not (run / "sft").exists() and (run / "reward" / "final").is_dir() and (run / "ppo" / "final").is_dir()
    assert main(["ppo", str(run), "--sft.method", "full", f"--data.demonstrations=[{{path: {tmp_path}/d.jsonl}}]"]) == 2
    assert "sampling has started with " in capsys.readouterr().err  # from the model as it was


def test_what_is_sound_is_in_order(tmp_path: Path, strict_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, _ = case("no prompt held out", tmp_path, strict_model)
    lines(tmp_path / "p.jsonl", ASKED)
    assert main(["check", str(written(tmp_path, changes))]) == 0
    assert "settings and data are valid" in capsys.readouterr().out


def test_columns_that_a_reward_function_does_not_read_are_told_by_check_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.write_data(tmp_path)
    lines(tmp_path / "prompts.jsonl", [{**row, "wants": "song"} for row in ASKED])
    chosen = small_run.ppo_alone(tmp_path, ppo={"scorer": {"function": "tests.rewards.functions:optional"}})
    told = (
        "ppo.scorer.function: tests.rewards.functions:optional does not read the columns wants; the default is "
        "used for its parameter want, which is no column"
    )
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    assert main(["check", str(config)]) == 0
    assert f"note: {told}" in capsys.readouterr().out
    assert main(["check", str(config), "--json"]) == 0
    assert told in json.loads(capsys.readouterr().out)["notes"]
    small_run.do(chosen, examine_run)
    log = tmp_path / "runs" / "small" / "log.jsonl"
    assert [line["message"] for line in map(json.loads, log.read_text().splitlines()) if line["level"] == "note"] == [
        told
    ]
