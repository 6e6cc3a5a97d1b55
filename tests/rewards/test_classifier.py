"""Classifiers as scorers: one label or a named one, their own tokenizer, and a reward model of ours as in its run."""

import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.small import CHAT, WORDS, random_model, shared_model, stir, tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification

from triphase.errors import ModelError, SettingsError, TriphaseError
from triphase.models.roles import REWARD
from triphase.records.types import Message, Prompt
from triphase.rewards.classifier import ClassifierScorer
from triphase.rewards.model import ModelScorer
from triphase.rewards.types import Answer, ScorerContext
from triphase.settings.scorer import ScorerSettings
from triphase.training.reward_finals import save_reward_model

TEXTS = ("oak", "red pine elm", "fir two", "two two two two", "ash")


def answers(finished: bool = True) -> list[Answer]:
    return [Answer(Prompt(f"p{n}", (Message("user", "one two"),)), text, finished) for n, text in enumerate(TEXTS)]


def classifier(folder: Path, labels: int = 1, **changes: Any) -> Path:
    """A random one, saved; its tokenizer has no chat template."""
    config = AutoConfig.for_model(
        "bert", vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, num_labels=labels, pad_token_id=0, initializer_range=0.5, **changes,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer(None).save_pretrained(folder)
    return folder


def opened(model: Path, **options: Any) -> ClassifierScorer:
    settings = ScorerSettings(kind="classifier", options={"model": str(model), **options})
    return ClassifierScorer(ScorerContext(settings))


@pytest.mark.parametrize(("setting", "kind"), [("cpu", "cpu"), ("auto", "cuda"), ("cuda", "cuda")])
def test_it_is_on_the_device_of_the_run(
    setting: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a GPU, too, which `model.device: cpu` leaves to others."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    moved: list[torch.device] = []

    def moving(module: Any, device: torch.device) -> Any:
        moved.append(device)
        return module

    made = classifier(tmp_path)
    monkeypatch.setattr(torch.nn.Module, "to", moving)
    settings = ScorerSettings(kind="classifier", options={"model": str(made)})
    ClassifierScorer(ScorerContext(settings, device=setting))
    assert [device.type for device in moved] == [kind]


def test_a_named_label_of_several(tmp_path: Path) -> None:
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    made = classifier(tmp_path, 2, id2label=names, label2id={name: n for n, name in names.items()})
    with pytest.raises(SettingsError, match=r"options.label: .* has several labels: NEGATIVE, POSITIVE; choose one"):
        opened(made)
    with pytest.raises(SettingsError, match=r"has no label 'GOOD'; it has NEGATIVE, POSITIVE"):
        opened(made, label="GOOD")
    model, ids = AutoModelForSequenceClassification.from_pretrained(made).eval(), tokenizer(None)
    with torch.no_grad():
        logits = [model(**ids(text, return_tensors="pt", return_token_type_ids=False)).logits[0] for text in TEXTS]
    wanted = [float(each[1]) for each in logits]
    assert opened(made, label="POSITIVE").score(answers()).total == pytest.approx(wanted, abs=1e-5)
    wanted = [float(each.log_softmax(0)[0]) for each in logits]
    found = opened(made, label="NEGATIVE", of="log-probability").score(answers()).total
    assert found == pytest.approx(wanted, abs=1e-5)
    config = made / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "problem_type": "multi_label_classification"}))
    wanted = [float(each.sigmoid().log()[0]) for each in logits]
    found = opened(made, label="NEGATIVE", of="log-probability").score(answers()).total
    assert found == pytest.approx(wanted, abs=1e-5)


def test_a_text_that_is_too_long_is_cut_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scorer = opened(classifier(tmp_path), max_length=4)
    long = Answer(Prompt("p", (Message("user", "one"),)), " ".join([*WORDS[:6], "oak", "elm", "fir", "red"]), True)
    with caplog.at_level(logging.INFO, logger="triphase"):
        short = scorer.score([Answer(long.prompt, "oak elm fir red", True)]).total
        assert scorer.score([long, long]).total == pytest.approx(short * 2)
        scorer.close()
    assert "a text has 10 tokens, but the limit is 4: its beginning is left out" in caplog.messages[0]
    assert caplog.messages[1].endswith("2 texts were longer than 4 tokens and were truncated")


def test_the_conversation_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    made = classifier(tmp_path)
    whole, alone = opened(made, reads="conversation"), opened(made)
    joined = [Answer(each.prompt, f"one two\n\n{each.response}", True) for each in answers()]
    assert whole.score(answers()).total == pytest.approx(alone.score(joined).total, abs=1e-6)


@pytest.mark.parametrize("finished", [True, False])
def test_our_reward_model_scores_as_in_its_run(finished: bool, tmp_path: Path) -> None:
    base = tmp_path / "base"
    random_model().save_pretrained(base)
    tokenizer(CHAT).save_pretrained(base)
    shared = shared_model(name=str(base))
    stir(shared, REWARD, seed=1)
    with torch.no_grad():
        shared.score_head.linear.weight.normal_(generator=torch.Generator().manual_seed(2))
        shared.score_head.linear.bias.fill_(0.75)
    save_reward_model(shared, tmp_path / "final", {"mean": 0.0, "deviation": 1.0})
    wanted = ModelScorer(shared).score(answers(finished)).total
    assert opened(tmp_path / "final").score(answers(finished)).total == pytest.approx(wanted, abs=1e-4)


def test_what_is_no_classifier_is_told(tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"is not a classifier: its files lack score.weight"):
        opened(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"task_type": "CAUSAL_LM", "base_model_name_or_path": "x"}')
    with pytest.raises(
        SettingsError, match=r"is an adapter for CAUSAL_LM, not a classifier; from a run use reward/final"
    ):
        opened(tmp_path)
    with pytest.raises(ModelError, match=r"^ppo.scorer.options.model: there is no directory \S+/absent"):
        opened(tmp_path / "absent")
    with pytest.raises(
        SettingsError, match=r"ppo.scorer.options.lable: unknown option of kind classifier; known are mo"
    ):
        opened(tmp_path, lable="x")
    with pytest.raises(SettingsError, match=r"ppo.scorer.options.model: is missing; kind classifier needs it"):
        ClassifierScorer(ScorerContext(ScorerSettings(kind="classifier")))


def altered(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def weights(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def broken(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value * math.nan if name == min(held) else value for name, value in held.items()}


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "not finite": (lambda made: weights(made / "model.safetensors", broken), r"\.bias is not finite"),
    "cut": (lambda made: os.truncate(made / "model.safetensors", 9000), r"has 9,000 bytes, but its header says"),
    "a pointer": (
        lambda made: (made / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        r"is a Git LFS pointer",
    ),
    "huge": (lambda made: altered(made / "config.json", num_hidden_layers=10**9), r"more than the weights can have"),
    "no count": (
        lambda made: altered(made / "config.json", num_attention_heads=0),
        r"num_attention_heads: 0 is not a positive",
    ),
    "labels": (
        lambda made: altered(made / "config.json", id2label={"5": "P", "6": "Q"}, label2id={"P": 5, "Q": 6}),
        r"has no output 5, which config.json names 'P'",
    ),
    "twice": (
        lambda made: altered(made / "config.json", id2label={"0": "P", "1": "P"}, label2id={"P": 1}),
        r"has several outputs with the label 'P'; give each",
    ),
    "longest": (lambda made: altered(made / "tokenizer_config.json", model_max_length="x"), r"cannot open \S+ as a"),
    "nested": (lambda made: (made / "config.json").write_text("[" * 100_000), r"is not valid JSON"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_classifier_is_one_line(name: str, tmp_path: Path) -> None:
    made = classifier(tmp_path, 2, id2label={0: "N", 1: "P"}, label2id={"N": 0, "P": 1})
    DAMAGES[name][0](made)
    with pytest.raises(TriphaseError, match=rf"^ppo\.scorer\.options\.(model|label): [^\n]*{DAMAGES[name][1]}[^\n]*$"):
        opened(made, label="P")


OF_ADAPTERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "half": (
        lambda made: weights(
            made / "final/adapter_model.safetensors",
            lambda held: {name: value for name, value in held.items() if "lora_B" not in name},
        ),
        r"it lacks \S+lora_B",
    ),
    "not finite": (lambda made: weights(made / "final/adapter_model.safetensors", broken), r"not finite"),
    "its head": (lambda made: weights(made / "final/score_head.safetensors", broken), r"bias is not finite"),
    "a base without a layer": (
        lambda made: weights(
            made / "base/model.safetensors",
            lambda held: {name: value for name, value in held.items() if "layers.1." not in name},
        ),
        r"its files lack model\.layers\.1\.",
    ),
    "a base not finite": (lambda made: weights(made / "base/model.safetensors", broken), r"is not finite"),
}  # fmt: skip


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("name", OF_ADAPTERS)
def test_a_damaged_reward_model_of_ours_is_one_line(name: str, sealed: bool, tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path / "base")
    tokenizer(CHAT).save_pretrained(tmp_path / "base")
    shared = shared_model(name=str(tmp_path / "base"))
    stir(shared, REWARD)
    save_reward_model(shared, tmp_path / "final", {"mean": 0.0, "deviation": 1.0})
    damage, says = OF_ADAPTERS[name]
    opened(tmp_path / "final")
    damage(tmp_path)
    if not sealed:
        (tmp_path / "final" / "manifest.json").unlink()
    elif "base" not in name:
        says = r"final is damaged: the checksum of \w+\.safetensors differs"
    with pytest.raises(TriphaseError, match=rf"^ppo\.scorer\.options\.model: [^\n]*{says}[^\n]*$"):
        opened(tmp_path / "final")
