"""What would stop a run later is reported before its first step, by file and line, and `check` reports the same."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.runs.small_run import settings
from tests.small import tokenizer

from triphase.cli.main import main

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


def turns(*roles_and_words: str) -> list[dict[str, str]]:
    return [
        {"role": role, "content": word} for role, word in zip(roles_and_words[::2], roles_and_words[1::2], strict=True)
    ]


def written(folder: Path, changes: dict[str, Any]) -> Path:
    """A settings file of a small run with changes, whose relations have not been checked yet."""
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
    """What `check` and `run` say of a configuration, both with exit code 2 and without a traceback."""
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
    """What to change for a refusal, and what both commands must say."""
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
        case "an arm's scorer's token is not set":
            scorer = {"address": "https://nowhere.example/score", "token_variable": "NOT_SET_ANYWHERE"}
            return {**plain, "arms": {"other": {"scorer": scorer}}}, "token_variable names NOT_SET_ANYWHERE"
        case "a server's token is not set":
            servers = {"addresses": ["https://nowhere.example"], "token_variable": "NOT_SET_ANYWHERE"}
            return {**plain, "rollouts": servers}, "rollouts.addresses: token_variable names NOT_SET_ANYWHERE"
        case "a server is away":
            servers = {"addresses": ["http://127.0.0.1:9"], "retries": 0}
            return {**plain, "rollouts": servers}, "rollouts.addresses: .*/health cannot be reached"
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
    "an arm's scorer's token is not set",
    "a server's token is not set",
    "a server is away",
]


@pytest.mark.parametrize("name", CASES)
def test_check_and_run_refuse_alike_before_the_first_step(
    name: str, tmp_path: Path, strict_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, wanted = case(name, tmp_path, strict_model)
    checked, ran = refusals(written(tmp_path, changes), capsys)
    for line in (checked, ran):
        assert line.startswith("error: ")
        assert re.search(wanted, line), line


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
    assert "sampling has started with it" in capsys.readouterr().err  # from the model as it was


def test_what_is_sound_is_in_order(tmp_path: Path, strict_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, _ = case("no prompt held out", tmp_path, strict_model)
    lines(tmp_path / "p.jsonl", ASKED)
    assert main(["check", str(written(tmp_path, changes))]) == 0
    assert "settings and data are valid" in capsys.readouterr().out
