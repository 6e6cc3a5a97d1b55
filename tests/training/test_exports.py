"""Exports in plain libraries: they end where the policy learned to end, and score at the same token."""

import contextlib
import io
import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.small import CHAT, END, WORDS, random_model, shared_model, stir, tokenizer
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from triphase.batches.padding import pad_batch
from triphase.models.members import WITNESS, Combination, Ensemble, RewardMember, member_adapter
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.records.types import Message
from triphase.tokens.encoding import Encoded
from triphase.training.finals import portable_name, save_policy, save_whole_model
from triphase.training.reward_finals import load_reward_model, save_reward_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
CALIBRATION = {"mean": 0.5, "standard_deviation": 2.0, "samples": 6}
# Turns end with <turn>, which is not what tokenizer and base call their end of sequence.
TURNS = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} <turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
SIZE = 6 + len(WORDS) + 1
TURN = SIZE - 1


def two_ends(directory: Path, **generation: Any) -> SharedModel:
    """A base in ``directory`` whose files call <end> the end, and whose chat template closes turns with <turn>."""
    model = random_model(vocab_size=SIZE)
    model.generation_config = GenerationConfig(**{"eos_token_id": 1, "pad_token_id": 0, **generation})
    model.save_pretrained(directory)
    made = tokenizer(TURNS, extra=["<turn>"])
    shared = shared_model(name=str(directory), made=made, vocab_size=SIZE)
    shared.backbone.model.generation_config = model.generation_config
    assert shared.template.end_id == TURN
    for number, adapter in enumerate((REFERENCE, POLICY, REWARD)):
        stir(shared, adapter, seed=number)
    return shared


def generated(directory: Path, model: Any, **options: Any) -> list[list[int]]:
    """What ``generate`` writes, at random, to a prompt of the chat template."""
    made = AutoTokenizer.from_pretrained(directory)
    inputs = made.apply_chat_template(
        [{"role": "user", "content": "oak"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    torch.manual_seed(0)
    rows = model.generate(
        input_ids=inputs["input_ids"].repeat(16, 1),
        attention_mask=inputs["attention_mask"].repeat(16, 1),
        max_new_tokens=30,
        do_sample=True,
        temperature=2.0,
        **options,
    )
    return rows[:, inputs["input_ids"].shape[1] :].tolist()


def ends_at_turns(rows: list[list[int]]) -> bool:
    """Whether nothing but padding follows the end of turn, and some row holds one."""
    after = [row[row.index(TURN) + 1 :] for row in rows if TURN in row]
    return bool(after) and not any(token for rest in after for token in rest)


# Exports stop


def test_a_whole_export_stops_at_the_end_of_turn_that_was_learned(tmp_path: Path) -> None:
    shared = two_ends(tmp_path / "base")
    save_whole_model(shared, tmp_path / "out")
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [TURN, 1]
    assert ends_at_turns(generated(tmp_path / "out", AutoModelForCausalLM.from_pretrained(tmp_path / "out")))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert not ends_at_turns(generated(tmp_path / "out", base))  # as every export did


@pytest.mark.parametrize("adapter", [REFERENCE, POLICY])
def test_an_adapter_brings_a_generation_configuration_that_stops(tmp_path: Path, adapter: str) -> None:
    save_policy(two_ends(tmp_path / "base"), adapter, tmp_path / "out", with_value_head=adapter == POLICY)
    config = GenerationConfig.from_pretrained(tmp_path / "out")
    assert config.eos_token_id == [TURN, 1] and config.pad_token_id == 0
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "out")
    assert ends_at_turns(generated(tmp_path / "out", model, generation_config=config))


@pytest.mark.parametrize(
    ("given", "ends"),
    [
        ({"eos_token_id": [1, 4]}, [TURN, 1, 4]),
        ({"eos_token_id": None}, TURN),
        ({"eos_token_id": [4, TURN]}, [TURN, 4]),
        ({"do_sample": True, "temperature": 0.7, "top_k": 20}, [TURN, 1]),
    ],
)
def test_ends_of_the_base_are_kept_and_so_is_the_rest(tmp_path: Path, given: dict[str, Any], ends: Any) -> None:
    save_whole_model(two_ends(tmp_path / "base", **given), tmp_path / "out")
    found = GenerationConfig.from_pretrained(tmp_path / "out")
    assert found.eos_token_id == ends
    assert (found.temperature, found.top_k) == (given.get("temperature"), given.get("top_k"))


def test_a_base_without_or_with_a_wrong_generation_configuration_exports(tmp_path: Path) -> None:
    shared = two_ends(tmp_path / "base")
    for number, given in enumerate((None, GenerationConfig(do_sample=False, temperature=0.7, eos_token_id=1))):
        shared.backbone.model.generation_config = given
        save_whole_model(shared, tmp_path / f"whole{number}")
        save_policy(shared, POLICY, tmp_path / f"policy{number}", with_value_head=False)
        for name in ("whole", "policy"):
            found = GenerationConfig.from_pretrained(tmp_path / f"{name}{number}").eos_token_id
            assert found == (TURN if given is None else [TURN, 1])


def test_where_the_two_ends_are_one_there_is_one(tmp_path: Path) -> None:
    save_whole_model(shared_model(), tmp_path / "out")
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == 1


# The score is read at the end of turn

CLOSINGS = {
    "a newline behind the end": "{{ m.content }} <turn>\n",
    "a word behind the end": "{{ m.content }} <turn> over ",
    "nothing behind the end": "{{ m.content }} <turn>",
    "a turn that is not closed": "{{ m.content }} ",
}


@pytest.mark.parametrize("system", [None, "red"])
@pytest.mark.parametrize("closing", CLOSINGS.values(), ids=CLOSINGS.keys())
def test_the_plain_score_of_the_usual_rendering_is_ours(tmp_path: Path, closing: str, system: str | None) -> None:
    text = (
        "\n{%- for m in messages %}<{{ m.role }}> " + closing + "{% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    extra = ["<turn>", "\n"]
    random_model(vocab_size=SIZE + 1).save_pretrained(tmp_path / "base")
    from triphase.models.loading import LoadedModel
    from triphase.settings.schema import AdapterSettings

    loaded = LoadedModel(
        random_model(vocab_size=SIZE + 1), tokenizer(text, extra=extra), str(tmp_path / "base"), system
    )
    shared = SharedModel(loaded, AdapterSettings(layers=2, rank=4), seed=0)
    stir(shared, REWARD)
    with torch.no_grad():
        shared.score_head.linear.bias.fill_(0.7)
    save_reward_model(shared, tmp_path / "out", CALIBRATION)
    template, answers = shared.template, ["red", "green blue", "elm fir three"]
    samples = [
        Encoded(tuple(template.prompt_ids([Message("user", "oak pine")])), tuple(template.response_ids(answer)))
        for answer in answers
    ]
    batch = pad_batch(samples, pad_id=template.pad_id)
    made = AutoTokenizer.from_pretrained(tmp_path / "out")
    opening = [{"role": "system", "content": system}] if system else []
    inputs = made.apply_chat_template(
        [
            [*opening, {"role": "user", "content": "oak pine"}, {"role": "assistant", "content": answer}]
            for answer in answers
        ],
        padding=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    base = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=1, pad_token_id=made.pad_token_id
    )
    model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    with torch.no_grad():
        found = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0] + 0.7
        ours = shared.scores(batch, shared.trunk(batch))
    assert torch.allclose(found, ours, rtol=0, atol=1e-5)
    # The prompt alone is rendered as ever, and the policy's tokenizer is not touched.
    asked = [*opening, {"role": "user", "content": "oak pine"}]
    for conversation, generation in ((asked, True), (asked, False)):
        assert made.apply_chat_template(conversation, tokenize=False, add_generation_prompt=generation) == (
            template.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=generation)
        )
    assert template.tokenizer.chat_template == text


# What stands beside the weights


def exports(tmp_path: Path, shared: SharedModel) -> list[Path]:
    save_policy(shared, POLICY, tmp_path / "policy", with_value_head=True)
    save_reward_model(shared, tmp_path / "reward", CALIBRATION)
    save_whole_model(shared, tmp_path / "whole")
    return [tmp_path / "policy", tmp_path / "reward", tmp_path / "whole"]


@pytest.mark.parametrize("kind", ["two ends", "one end", "plain text", "plain text that is ended"])
def test_the_calls_of_each_readme_run_as_they_stand(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    transformers_logging.warning_once.cache_clear()
    if kind == "two ends":
        shared = two_ends(tmp_path / "base")
    else:
        random_model().save_pretrained(tmp_path / "base")
        made = tokenizer(CHAT if kind == "one end" else None)
        if kind == "plain text that is ended":
            ended = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
            made.backend_tokenizer.post_processor = ended
        shared = shared_model(name=str(tmp_path / "base"), made=made)
        for adapter in (REFERENCE, POLICY, REWARD):
            stir(shared, adapter)
    for directory in exports(tmp_path, shared):
        monkeypatch.chdir(directory)
        card = (directory / "README.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert len(blocks) == 1 and card.startswith("---\nlibrary_name: ")
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            exec(blocks[0], names := {})  # noqa: S102 - the test's own export
        if kind.startswith("plain text") and directory.name != "reward":
            assert names["inputs"]["input_ids"].tolist() == [
                shared.template.prompt_ids([Message("user", "How are you?")])
            ]
        assert "tensor([" in shown.getvalue() if directory.name == "reward" else True
        assert "deprecated" not in caplog.text


@pytest.mark.parametrize("combine", ["mean", "worst", "mean-minus-variance"])
def test_the_card_of_an_ensemble_gives_its_scores(
    tmp_path: Path, combine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = two_ends(tmp_path / "base")
    members = [RewardMember(REWARD, shared.score_head)]
    for number in (1, 2):
        stir(shared, member_adapter(REWARD, number), seed=number + 3)
        members.append(RewardMember(member_adapter(REWARD, number), shared.fresh_score_head(0, number)))
    stir(shared, WITNESS, seed=9)
    shared.witness = RewardMember(WITNESS, shared.fresh_score_head(0, 9))
    with torch.no_grad():
        for number, member in enumerate([*members, shared.witness]):
            member.head.linear.bias.fill_(0.3 * number - 0.2)
    shared.ensemble = Ensemble(tuple(members), Combination(combine, 0.7, center=0.4, scale=1.7, disagreement=0.9))
    save_reward_model(shared, tmp_path / "out", CALIBRATION)
    monkeypatch.chdir(tmp_path / "out")
    card = Path("README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(block, names := {})  # noqa: S102 - the test's own export
    template, texts = shared.template, ("Well.", "Go away.")
    prompt = tuple(template.prompt_ids([Message("user", "How are you?")]))
    samples = [Encoded(prompt, tuple(template.response_ids(text))) for text in texts]
    batch = pad_batch(samples, pad_id=template.pad_id)
    with torch.no_grad():
        ours, witness = (
            shared.scores(batch, shared.trunk(batch)),
            shared.scores_by(shared.witness, batch, shared.trunk(batch)),
        )
    assert torch.allclose(names["scores"], ours, rtol=0, atol=1e-5)
    opened = two_ends(tmp_path / "again")
    load_reward_model(opened, tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(opened.scores(batch, opened.trunk(batch)), ours)
        assert opened.witness is not None and opened.ensemble is not None
        assert torch.equal(opened.scores_by(opened.witness, batch, opened.trunk(batch)), witness)
    assert opened.ensemble.combination == shared.ensemble.combination
    assert f"({combine})" in card and "second opinion" in card


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        found = exports(tmp_path, two_ends(tmp_path / "base"))
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for folder in found for path in folder.rglob("*") if path.is_file()
    }
    assert "model.safetensors" in modes and set(modes.values()) == {0o640}


def test_an_adapter_names_its_base_so_that_others_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    assert portable_name(str(tmp_path / "models" / "base")) == "models/base"
    assert portable_name("organization/model") == "organization/model"
    assert portable_name("/models/base") == "/models/base"
    shared = two_ends(tmp_path / "base")
    for directory in exports(tmp_path, shared)[:2]:
        config = json.loads((directory / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "base"
    assert END not in json.dumps(config)


def test_a_run_on_an_embedded_model_names_no_cache() -> None:
    from triphase.demo.embedded import public_name

    assert public_name("embedded:smollm2")[0] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "4-bit" in public_name("embedded:smollm2")[1]
    assert public_name("embedded:tiny")[0] == "embedded:tiny" and "triphase export" in public_name("embedded:tiny")[1]
    assert public_name("organization/model") == ("organization/model", "")
