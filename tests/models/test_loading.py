"""What opens is whole; what is missing, unexpected, damaged or not finite is one line that names it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.small import random_model, shared_model, stir, tokenizer
from transformers import AutoModelForSequenceClassification

from triphase.errors import ModelError
from triphase.models.chain import chain_of
from triphase.models.checking import check_chain
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, REFERENCE, SharedModel
from triphase.settings.schema import AdapterSettings, ModelSettings
from triphase.training.finals import save_policy
from triphase.training.reward_finals import save_reward_model

Weights = dict[str, torch.Tensor]
ALL = AdapterSettings(layers="all", rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in a directory, its head not tied."""
    place = tmp_path_factory.mktemp("models") / "whole"
    random_model(layers=2, tie_word_embeddings=False).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(whole, tmp_path / "model")


def load(place: Path | str) -> SharedModel:
    return SharedModel(load_model(ModelSettings(name=str(place), dtype="float32")), ALL, seed=0)


def check(place: Path | str) -> None:
    check_chain(chain_of(ModelSettings(name=str(place))), ALL, max_length=64)


def refused(place: Path | str, *, by_check: bool = True) -> str:
    """The one line that both give."""
    with pytest.raises(ModelError) as found:
        load(place)
    if by_check:
        with pytest.raises(ModelError) as early:
            check(place)
        assert str(early.value).splitlines()[0] == str(found.value)
    else:
        check(place)
    assert "\n" not in str(found.value)
    return str(found.value)


def reweight(place: Path, change: Callable[[Weights], Weights]) -> None:
    file = place / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def reconfigure(place: Path, **changes: Any) -> None:
    path = place / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_model_without_its_tokenizer_is_told_so(damaged: Path) -> None:
    for path in damaged.glob("token*"):
        path.unlink()
    assert "contains no tokenizer; copy the model's tokenizer files into it" in refused(damaged)


def test_a_whole_model_opens_and_tied_weights_are_no_fault(whole: Path, tmp_path: Path) -> None:
    check(whole)
    load(whole)
    random_model(layers=2).save_pretrained(tmp_path / "tied")
    tokenizer().save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    check(tmp_path / "tied")
    load(tmp_path / "tied")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "pretrained_model.", "_fsdp_wrapped_module."])
def test_names_behind_a_wrappers_prefix_are_told(damaged: Path, prefix: str) -> None:
    reweight(damaged, lambda weights: {prefix + name: value for name, value in weights.items()})
    line = refused(damaged)
    assert "the files lack lm_head.weight" in line
    assert f"the model has no {prefix}lm_head.weight" in line
    assert f"the names begin with {prefix!r}" in line


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("lm_head", "the files lack lm_head.weight;"),
        ("layers.1.", "the files lack model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight"),
        ("embed_tokens", "the files lack model.embed_tokens.weight;"),
        ("model.norm", "the files lack model.norm.weight;"),
    ],
)
def test_a_missing_tensor_is_never_drawn_at_random(damaged: Path, gone: str, told: str) -> None:
    reweight(damaged, lambda weights: {name: value for name, value in weights.items() if gone not in name})
    assert told in refused(damaged)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_hidden_layers": 1}, "the model has no model.layers.1."),
        ({"num_hidden_layers": 3}, "the files lack model.layers.2."),
        ({"vocab_size": 40}, "shape (26, 32) in the files, but config.json says (40, 32)"),
        ({"intermediate_size": 24}, "in the files, but config.json says (32, 24)"),
        ({"num_key_value_heads": 1}, "in the files, but config.json says (8, 32)"),
        ({"attention_bias": True}, "the files lack model.layers.0.self_attn.k_proj.bias"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configuration_of_another_model_is_told(damaged: Path, changes: dict[str, Any], told: str) -> None:
    reconfigure(damaged, **changes)
    assert told in refused(damaged)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.layers.0.mlp.down_proj.weight", "lm_head.weight", "model.norm.weight"])
def test_weights_that_are_not_finite_are_named(damaged: Path, name: str, value: float) -> None:
    def change(weights: Weights) -> Weights:
        weights[name].view(-1)[3] = value
        return weights

    reweight(damaged, change)
    assert f"{name}: not finite" in refused(damaged, by_check=False)


def test_a_configuration_under_which_nothing_is_finite_is_told_as_such(damaged: Path) -> None:
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "rms_norm_eps": -10.0}))
    assert "returns hidden states that are not finite, although its weights are" in refused(damaged, by_check=False)


def test_a_reward_model_is_no_base(damaged: Path, tmp_path: Path) -> None:
    reconfigure(damaged, num_labels=1)
    AutoModelForSequenceClassification.from_pretrained(damaged, num_labels=1).save_pretrained(tmp_path / "reward")
    tokenizer().save_pretrained(tmp_path / "reward")
    assert "LlamaForSequenceClassification is a classifier or reward model" in refused(tmp_path / "reward")
    reconfigure(tmp_path / "reward", architectures=["LlamaForCausalLM"])
    assert "the model has no score.weight; it is a reward or value model" in refused(tmp_path / "reward")
    reconfigure(tmp_path / "reward", tie_word_embeddings=True)
    assert "it is a reward or value model" in refused(tmp_path / "reward")


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda place: (place / name).write_bytes(content)


def _cut(name: str, share: float) -> Callable[[Path], object]:
    def damage(place: Path) -> None:
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[: int(len(content) * share)])

    return damage


def _config(**changes: Any) -> Callable[[Path], object]:
    return lambda place: reconfigure(place, **changes)


def _json(name: str, **changes: Any) -> Callable[[Path], object]:
    def damage(place: Path) -> None:
        path = place / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def _vocabulary(words: dict[str, int]) -> Callable[[Path], object]:
    def damage(place: Path) -> None:
        path = place / "tokenizer.json"
        found = json.loads(path.read_text())
        path.write_text(json.dumps({**found, "model": {**found["model"], "vocab": words}}))

    return damage


def _index(weight_map: Any) -> Callable[[Path], object]:
    def damage(place: Path) -> None:
        (place / "model.safetensors").rename(place / "model-00001.safetensors")
        (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return damage


def _as_directory(name: str) -> Callable[[Path], object]:
    def damage(place: Path) -> None:
        (place / name).unlink()
        (place / name).mkdir()

    return damage


def _pickled(place: Path) -> None:
    (place / "model.safetensors").rename(place / "pytorch_model.bin")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n"
HEADER = json.dumps({"lm_head.weight": {"dtype": "F32", "shape": [26, 32], "data_offsets": [0, 1 << 40]}}).encode()
DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights cut in half": _cut("model.safetensors", 0.5),
    "weights cut in the header": _cut("model.safetensors", 0.01),
    "weights of one byte less": lambda place: _cut("model.safetensors", 0.9999)(place),
    "weights empty": _write("model.safetensors", b""),
    "weights a pointer": _write("model.safetensors", LFS),
    "weights a page": _write("model.safetensors", b"<!DOCTYPE html><html>not found</html>"),
    "header no JSON": _write("model.safetensors", (8).to_bytes(8, "little") + b"{{{{{{{{"),
    "header a list": _write("model.safetensors", (8).to_bytes(8, "little") + b"[1,2,3] "),
    "header of great length": _write("model.safetensors", (1 << 62).to_bytes(8, "little") + b"{}"),
    "header with great places": _write("model.safetensors", len(HEADER).to_bytes(8, "little") + HEADER),
    "weights a directory": _as_directory("model.safetensors"),
    "weights a pickle": _pickled,
    "weights gone": lambda place: (place / "model.safetensors").unlink(),
    "config gone": lambda place: (place / "config.json").unlink(),
    "config empty": _write("config.json", b""),
    "config cut": _cut("config.json", 0.5),
    "config a list": _write("config.json", b"[1, 2]"),
    "config a number": _write("config.json", b"7"),
    "config nested without end": _write("config.json", b"[" * 200_000),
    "config not text": _write("config.json", b"\xff\xfe\x00\x81"),
    "config a pointer": _write("config.json", LFS),
    "no model_type": _config(model_type=None),
    "model_type unknown": _config(model_type="llamma"),
    "model_type a list": _config(model_type=["llama"]),
    "model_type an encoder": _config(model_type="bert"),
    "model_type a vision model": _config(model_type="vit"),
    "an encoder-decoder model": _config(is_encoder_decoder=True, model_type="t5"),
    "architectures a number": _config(architectures=5),
    "quantized": _config(quantization_config={"quant_method": "gptq", "bits": 4}),
    "hidden_size text": _config(hidden_size="32"),
    "hidden_size 0": _config(hidden_size=0),
    "hidden_size negative": _config(hidden_size=-32),
    "hidden_size huge": _config(hidden_size=10**12),
    "hidden_size beyond 64 bits": _config(hidden_size=10**30),
    "layers huge": _config(num_hidden_layers=10**9),
    "layers 0": _config(num_hidden_layers=0),
    "layers a fraction": _config(num_hidden_layers=2.5),
    "layers a list": _config(num_hidden_layers=[2]),
    "heads 0": _config(num_attention_heads=0),
    "heads that do not divide": _config(num_attention_heads=3),
    "key heads 0": _config(num_key_value_heads=0),
    "vocabulary huge": _config(vocab_size=10**11),
    "vocabulary true": _config(vocab_size=True),
    "head_dim 0": _config(head_dim=0),
    "activation unknown": _config(hidden_act="nosuch"),
    "activation a number": _config(hidden_act=3),
    "norm text": _config(rms_norm_eps="small"),
    "positions unknown": _config(rope_parameters={"rope_type": "nosuch"}),
    "positions a number": _config(rope_parameters=3),
    "dtype unknown": _config(dtype="float31"),
    "tokenizer gone": lambda place: [file.unlink() for file in place.glob("tokenizer*")],
    "tokenizer cut": _cut("tokenizer.json", 0.5),
    "tokenizer empty": _write("tokenizer.json", b""),
    "tokenizer a list": _write("tokenizer.json", b"[]"),
    "tokenizer a pointer": _write("tokenizer.json", LFS),
    "tokenizer_config a list": _write("tokenizer_config.json", b"[]"),
    "tokenizer_config nested": _write("tokenizer_config.json", b"[" * 200_000),
    "tokenizer_config with a length in words": _json("tokenizer_config.json", model_max_length="x"),
    "tokenizer_config with a length of nothing": _json("tokenizer_config.json", model_max_length=[[]]),
    "tokenizer_config with an empty token": _json("tokenizer_config.json", unk_token=""),
    "tokenizer with the words of another": _vocabulary({"a": 1}),
    "generation ends at a fraction": _json("generation_config.json", eos_token_id=0.5),
    "generation ends at a list of lists": _json("generation_config.json", eos_token_id=[1, [2]]),
    "generation ends at an object": _json("generation_config.json", eos_token_id=[{}]),
    "generation ends at no id": _json("generation_config.json", eos_token_id=[-1]),
    "generation ends beyond 64 bits": _json("generation_config.json", eos_token_id=2**70),
    "index of nothing": _index({}),
    "index a list": _index([1]),
    "index of a shard that is gone": _index({"lm_head.weight": "model-00002.safetensors"}),
    "index of a tensor that is gone": _index({"nosuch.weight": "model-00001.safetensors"}),
    "index out of the directory": _index({"lm_head.weight": "../../etc/passwd"}),
    "index with numbers": _index({"lm_head.weight": 3}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_directory_ends_in_one_line(damaged: Path, damage: Callable[[Path], object]) -> None:
    damage(damaged)
    line = refused(damaged)
    assert line.startswith("model.name: ")
    assert len(line) < 900


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("./nope", "there is no directory ./nope; did you mean nopes?"),
        ("nopes/", "nopes has no config.json; did you mean nopes/inner?"),
        ("a/b/c", "there is no directory a/b/c (the working directory holds nopes)"),
        ("nopes/iner", "there is no directory nopes/iner; did you mean nopes/inner?"),
        ("nopes/inner/config.json", "is a file"),
        ("~nosuchuser/model", "cannot be accessed"),
        ("x" * 300, "cannot be accessed"),
        ("loop", "is a broken link"),
        ("a\0b", "there is no directory"),
        ("organization/model", "there is no such directory, and a hub id needs the network once"),
        ("nopes/run", "is the directory of a run; give the `final` directory"),
    ],
)
def test_the_cause_of_a_wrong_name_is_told(here: Path, name: str, told: str) -> None:
    (here / "nopes" / "inner").mkdir(parents=True)
    (here / "nopes" / "inner" / "config.json").write_text("{}")
    (here / "nopes" / "run").mkdir()
    (here / "nopes" / "run" / "config.yaml").write_text("{}")
    (here / "loop").symlink_to("loop")
    line = refused(name)
    assert told in line
    assert "Repo id" not in line


def trained(place: Path, folder: Path) -> SharedModel:
    """A run's two kinds of adapter in ``folder``: a policy, and a reward model."""
    shared = load(place)
    for name in (POLICY, "reward"):
        stir(shared, name)
    save_policy(shared, POLICY, folder / "policy", with_value_head=True)
    save_reward_model(shared, folder / "reward", {"mean": 0.0})
    return shared


def test_an_adapter_opens_as_its_base_with_the_update(whole: Path, tmp_path: Path) -> None:
    shared = trained(whole, tmp_path)
    check(tmp_path / "policy")
    opened = load(tmp_path / "policy")
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        with shared.role(POLICY):
            expected = shared.backbone.upper(shared.backbone.trunk(ids))
        found = opened.backbone.upper(opened.backbone.trunk(ids))
        assert not torch.allclose(shared.backbone.upper(shared.backbone.trunk(ids)), expected, atol=1e-2)
    assert torch.allclose(found, expected, atol=1e-5)


def test_an_adapter_on_an_adapter_opens_with_both_updates(whole: Path, tmp_path: Path) -> None:
    trained(whole, tmp_path)
    first = load(tmp_path / "policy")
    stir(first, REFERENCE, seed=1)
    save_policy(first, REFERENCE, tmp_path / "second", with_value_head=False)
    ids = torch.tensor([[7, 8, 9, 10]])
    second = load(tmp_path / "second")
    with torch.no_grad(), first.role(REFERENCE):
        expected = first.backbone.upper(first.backbone.trunk(ids))
        assert torch.allclose(second.backbone.upper(second.backbone.trunk(ids)), expected, atol=1e-5)


def _adapter(**changes: Any) -> Callable[[Path], object]:
    def damage(place: Path) -> None:
        path = place / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def _adapter_weights(change: Callable[[Weights], Weights]) -> Callable[[Path], object]:
    def damage(place: Path) -> None:
        save_file(change(load_file(place / "adapter_model.safetensors")), place / "adapter_model.safetensors")

    return damage


def _fill(weights: Weights) -> Weights:
    next(iter(weights.values()))[0, 0] = float("nan")
    return weights


ADAPTER_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "base gone": (_adapter(base_model_name_or_path="./nope"), "correct it there"),
    "base empty": (_adapter(base_model_name_or_path=None), "has no base_model_name_or_path"),
    "its own base": (_adapter(base_model_name_or_path="."), "refer to each other as base"),
    "another kind": (_adapter(peft_type="PREFIX_TUNING"), "cannot be merged"),
    "cut": (_cut("adapter_model.safetensors", 0.5), "bytes, but its header says"),
    "a pointer": (_write("adapter_model.safetensors", LFS), "Git LFS pointer"),
    "config a list": (_write("adapter_config.json", b"[]"), "not a JSON object"),
    "no weights": (lambda place: (place / "adapter_model.safetensors").unlink(), "has no adapter_model"),
    "lacks a tensor": (
        _adapter_weights(lambda weights: dict(list(weights.items())[1:])),
        "it lacks base_model.model.",
    ),
    "has one more": (
        _adapter_weights(lambda weights: {**weights, "base_model.model.x": torch.ones(1)}),
        "it has base_model.model.x",
    ),
    "not finite": (_adapter_weights(_fill), "not finite"),
    "rank of another": (_adapter(r=8), "the base or the rank (r) differs"),
    "targets nothing": (_adapter(target_modules=["nosuch"]), "cannot open the adapter"),
    "no targets": (_adapter(target_modules=None), "target_modules is 'None'"),
    "rank text": (_adapter(r="many"), "r is 'many'; it must be a whole number"),
}


@pytest.mark.parametrize(("damage", "told"), ADAPTER_DAMAGES.values(), ids=ADAPTER_DAMAGES.keys())
def test_a_damaged_adapter_ends_in_one_line(
    whole: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained(whole, tmp_path)
    monkeypatch.chdir(tmp_path / "policy")
    damage(tmp_path / "policy")
    assert told in refused(tmp_path / "policy")


def test_the_adapter_of_a_reward_model_is_no_policy(whole: Path, tmp_path: Path) -> None:
    trained(whole, tmp_path)
    assert "adapter of a reward model" in refused(tmp_path / "reward")


def test_a_tokenizer_larger_than_the_embedding_names_both_sizes(damaged: Path) -> None:
    made = tokenizer(pad_token=None, extra=["[PAD]"])
    made.add_special_tokens({"pad_token": "[PAD]"})
    made.save_pretrained(damaged)
    line = refused(damaged)
    assert "padding token [PAD] has the id 26, but the model has 26 rows for the 27 tokens" in line


def test_a_text_with_a_token_beyond_the_embedding_is_refused(damaged: Path) -> None:
    made = tokenizer()
    made.add_tokens(["<more>"])  # not special: what is special cannot be written by a text
    made.save_pretrained(damaged)
    shared = load(damaged)
    assert shared.template.response_ids("oak elm") == [14, 9, 1]
    with pytest.raises(Exception, match=r"'<more>' with the id 26, but the model has 26 rows") as found:
        shared.template.response_ids("oak <more>")
    assert type(found.value).__name__ == "DataError"


def test_settings_that_the_layers_do_not_allow_are_told_without_weights(whole: Path, tmp_path: Path) -> None:
    chain = chain_of(ModelSettings(name=str(whole)))
    check_chain(chain, AdapterSettings(layers=3), max_length=64)  # all of its two layers
    with pytest.raises(ModelError, match=r"adapters\.targets has nosuch"):
        check_chain(chain, AdapterSettings(layers=2, targets=("nosuch",)), max_length=64)
    random_model("opt", layers=2, word_embed_proj_dim=32, ffn_dim=48).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    learned = chain_of(ModelSettings(name=str(tmp_path)))
    with pytest.raises(ModelError, match=r"model\.max_length = 65, but the model has positions for 64 tokens"):
        check_chain(learned, ALL, max_length=65)
    check_chain(learned, ALL, max_length=64)


def test_a_dtype_that_is_no_name_is_taken_by_both(damaged: Path) -> None:
    reconfigure(damaged, dtype=16, torch_dtype=16)
    check(damaged)
    load(damaged)


def test_a_quantized_model_without_linear_maps_is_refused_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_model("gpt2", n_embd=32, n_head=4, n_layer=2, n_positions=64).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr("triphase.models.checking.require_library", lambda kind: None)
    chain = chain_of(ModelSettings(name=str(tmp_path), quantization="int8"))
    with pytest.raises(ModelError, match=r"model\.quantization: int8 needs linear layers"):
        check_chain(chain, ALL, max_length=64)


def test_maps_whose_weights_a_layer_reads_itself_are_adapted(tmp_path: Path) -> None:
    """Mamba multiplies with ``dt_proj.weight``: the update acts, and has a gradient."""
    shared = shared_model("mamba", adapted="all")
    shared.adapters.add(POLICY)
    shared.adapters.train_only(POLICY)
    with shared.role(POLICY):
        ids = torch.tensor([[7, 8, 9]])
        shared.backbone.upper(shared.backbone.trunk(ids)).sum().backward()
    gradients = {name: value.grad for name, value in shared.adapters.parameters(POLICY).items() if "lora_B" in name}
    assert any("dt_proj" in name for name in gradients)
    assert all(grad is not None and bool(grad.abs().sum() > 0) for grad in gradients.values())
