"""Classifiers as scorers: one label or a named one, their own tokenizer, and a reward model of ours as in its run."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import CHAT, WORDS, random_model, shared_model, stir, tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification

from triphase.errors import SettingsError
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


def test_a_named_label_of_several(tmp_path: Path) -> None:
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    made = classifier(tmp_path, 2, id2label=names, label2id={name: n for n, name in names.items()})
    with pytest.raises(SettingsError, match=r"options.label: .* has several labels: NEGATIVE, POSITIVE; name one"):
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
    assert "a text has 10 tokens, and 4 can be read: its beginning is left out" in caplog.messages[0]
    assert caplog.messages[1].endswith("2 texts were longer than 4 tokens, and were cut")


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
    with pytest.raises(SettingsError, match=r"is no classifier: its files lack score.weight"):
        opened(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"task_type": "CAUSAL_LM", "base_model_name_or_path": "x"}')
    with pytest.raises(SettingsError, match=r"is an adapter for CAUSAL_LM, no classifier; of a run name reward/final"):
        opened(tmp_path)
    with pytest.raises(SettingsError, match=r"options.model: cannot open \S+/absent as a sequence classifier"):
        opened(tmp_path / "absent")
    with pytest.raises(
        SettingsError, match=r"ppo.scorer.options.lable: unknown option of kind classifier; known are mo"
    ):
        opened(tmp_path, lable="x")
    with pytest.raises(SettingsError, match=r"ppo.scorer.options.model: is missing; kind classifier needs it"):
        ClassifierScorer(ScorerContext(ScorerSettings(kind="classifier")))
