"""`model.adapter`: someone's peft adapter is merged into the base that it belongs to, and into no other."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.small import random_model, tokenizer
from transformers import AutoModelForCausalLM

from triphase.datacheck.model_check import check_model
from triphase.datacheck.model_names import place_of, place_without_torch
from triphase.errors import ModelError
from triphase.models.loading import load_model
from triphase.settings.schema import ModelSettings, RunSettings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `other` (of another width), and `adapter`, which peft itself trained on `base` by hand."""
    folder = tmp_path_factory.mktemp("made")
    for name, config in (("base", {}), ("other", {"intermediate_size": 40})):
        random_model(layers=2, **config).save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    base = load_model(ModelSettings(name=str(folder / "base"))).model
    low_rank = LoraConfig(r=3, lora_alpha=12, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(base, low_rank)
    draw = torch.Generator().manual_seed(1)
    for name, value in wrapped.named_parameters():
        if "lora_B" in name:
            value.data = 0.3 * torch.randn(value.shape, generator=draw)
    wrapped.save_pretrained(folder / "adapter")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    reconfigure(tmp_path, base_model_name_or_path=str(tmp_path / "base"))
    return tmp_path


def reconfigure(folder: Path, **changes: object) -> None:
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def model_of(folder: Path, base: str = "base", adapter: str = "adapter") -> ModelSettings:
    return ModelSettings(name=str(folder / base), adapter=str(folder / adapter), dtype="float32", max_length=64)


def refused(model: ModelSettings) -> str:
    """The error of loading, which `check` reports too: one line."""
    said = []
    for look in (lambda: load_model(model, place_of), lambda: check_model(settings_of(model))):
        with pytest.raises(ModelError) as error:
            look()
        said.append(str(error.value))
    assert said[0] == said[1] and "\n" not in said[0] and said[0].startswith("model.adapter: ")
    return said[0]


def settings_of(model: ModelSettings) -> RunSettings:
    values = {"name": "x", "model": model.model_dump(), "data": {}, "adapters": {"layers": "all"}}
    return RunSettings.model_validate(values)


def test_its_update_is_in_the_weights(folder: Path) -> None:
    model = model_of(folder)
    found = load_model(model, place_of)
    plain = load_model(ModelSettings(name=str(folder / "base"), dtype="float32"))
    update = load_file(folder / "adapter" / "adapter_model.safetensors")
    path = "model.layers.1.self_attn.q_proj"
    a, b = (update[f"base_model.model.{path}.lora_{side}.weight"] for side in "AB")
    wanted = plain.model.get_submodule(path).weight + 12 / 3 * (b @ a)
    assert torch.allclose(found.model.get_submodule(path).weight, wanted, atol=1e-6)
    assert found.name == str(folder / "adapter")
    assert torch.equal(found.model.lm_head.weight, plain.model.lm_head.weight)
    check_model(settings_of(model))
    place_without_torch(model)


def test_an_adapter_of_another_base_names_both(folder: Path) -> None:
    said = refused(model_of(folder, base="other"))
    assert f"is an adapter of {folder / 'base'}, and model.name is {folder / 'other'}" in said and "correct" in said
    with pytest.raises(ModelError, match="is an adapter of"):
        place_without_torch(model_of(folder, base="other"))


def test_a_copy_of_the_base_under_its_hub_name_is_the_base(folder: Path) -> None:
    reconfigure(folder, base_model_name_or_path="someone/Base")
    load_model(model_of(folder), place_of)


def test_a_base_of_that_name_with_other_shapes_is_refused(folder: Path) -> None:
    reconfigure(folder, base_model_name_or_path="someone/other")
    assert "has the shape" in refused(model_of(folder, base="other"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda place: (place / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda place: (place / "adapter_model.safetensors").write_bytes(b"short"), "is not a safetensors file"),
        (lambda place: (place / "adapter_config.json").unlink(), "has no adapter_config.json"),
        (lambda place: reconfigure(place.parent, r="many"), "r is 'many'; it must be a whole number"),
        (lambda place: reconfigure(place.parent, r=5), "the rank (r) differs"),
        (lambda place: reconfigure(place.parent, target_modules=[]), "lists no layers"),
        (lambda place: reconfigure(place.parent, peft_type="IA3"), "cannot be merged"),
        (lambda place: reconfigure(place.parent, layer_replication=[[0, 2], [1, 2]]), "makes another model"),
        (lambda place: reconfigure(place.parent, init_lora_weights="pissa_niter_4"), "began on a changed base"),
        (lambda place: reconfigure(place.parent, task_type="SEQ_CLS"), "adapter of a reward model"),
        (lambda place: spoil(place), "not finite"),
    ],
)  # fmt: skip
def test_a_damaged_one_is_refused_in_one_line(folder: Path, change, told: str) -> None:
    change(folder / "adapter")
    assert told in refused(model_of(folder))


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"init_lora_weights": "pissa"},
        {"use_dora": True, "bias": "all"},
    ],
)
def test_what_peft_computes_with_it_is_what_the_merged_model_computes(folder: Path, config: dict[str, Any]) -> None:
    """On a base whose input and output embedding are one matrix."""
    save_adapter(folder, **config)
    ids = torch.arange(4, 10)[None]
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        wanted = PeftModel.from_pretrained(base_of(folder), folder / "adapter").eval()(ids).logits
        found = load_model(model_of(folder), place_of).model(ids).logits
    assert torch.allclose(found, wanted, atol=1e-4)
    assert (wanted - base_of(folder)(ids).logits).abs().max() > 0.1
    check_model(settings_of(model_of(folder)))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"lora_bias": True}, "lora_bias gives model.layers.0.mlp.down_proj a bias, and the base has none"),
        ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, "ensure_weight_tying updates"),
    ],
)
def test_what_cannot_be_merged_is_refused_before_a_weight_is_read(
    folder: Path, config: dict[str, Any], told: str
) -> None:
    save_adapter(folder, **config)
    assert told in refused(model_of(folder))


def base_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)


def save_adapter(folder: Path, **config: Any) -> None:
    """An adapter of `base` with other settings of peft, each trained parameter off its start."""
    plain = {"r": 3, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    with warnings.catch_warnings(action="ignore"):
        wrapped = get_peft_model(base_of(folder), LoraConfig(**{**plain, **config}))
        draw = torch.Generator().manual_seed(1)
        for value in wrapped.parameters():
            if value.requires_grad:
                value.data += 0.3 * torch.randn(value.shape, generator=draw)
        wrapped.save_pretrained(folder / "adapter")


def spoil(place: Path) -> None:
    held = load_file(place / "adapter_model.safetensors")
    next(iter(held.values()))[0, 0] = float("inf")
    save_file(held, place / "adapter_model.safetensors")


def test_a_misspelt_one_is_told_beside_what_is_there(folder: Path) -> None:
    assert "did you mean" in refused(model_of(folder, adapter="adaptor"))


def test_a_hub_id_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetched(name: str, **_: object) -> str:
        asked.append(name)
        return str(folder / "adapter")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    monkeypatch.chdir(folder / "other")
    model = ModelSettings(name=str(folder / "base"), adapter="someone/style", dtype="float32")
    assert load_model(model, place_of).name == str(folder / "adapter") and asked == ["someone/style"]


def test_a_hub_id_that_cannot_be_fetched_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(name: str, **_: object) -> str:
        raise OSError("Cannot reach the hub\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    monkeypatch.chdir(folder / "other")
    model = ModelSettings(name=str(folder / "base"), adapter="someone/style")
    assert "downloaded as a hub id (Cannot reach the hub)" in refused(model)
