"""Final directories open in plain transformers and peft, with the same outputs."""

import errno
import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from tests.small import CHAT, END, random_model, samples, shared_model, stir, tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from triphase.batches.padding import pad_batch
from triphase.errors import ModelError, RunError
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.training.artifacts import is_whole
from triphase.training.finals import load_policy, save_policy, save_whole_model
from triphase.training.reward_finals import load_reward_model, save_reward_model

# peft asks transformers for a name that it is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
MADE = samples(6)
BATCH = pad_batch(MADE, pad_id=0)
CALIBRATION = {"mean": 0.5, "standard_deviation": 2.0, "samples": 6}
KINDS = ["llama", "qwen2"]


def on_disk(directory: Path, kind: str = "llama", **options: object) -> SharedModel:
    """A shared model whose base stands in ``directory``."""
    random_model(kind).save_pretrained(directory)
    shared = shared_model(kind, name=str(directory), **options)
    for number, adapter in enumerate((REFERENCE, POLICY, REWARD)):
        stir(shared, adapter, seed=number)
    with torch.no_grad():
        shared.value_head.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
        shared.score_head.linear.bias.fill_(0.7)
    return shared


def logprobs(shared: SharedModel, adapter: str | None) -> torch.Tensor:
    with torch.no_grad():
        return shared.policy_output(BATCH, shared.trunk(BATCH), adapter=adapter, temperature=1.0).logprobs


@torch.no_grad()
def plain_logprobs(model: torch.nn.Module) -> torch.Tensor:
    """(B, R), by the plain model with an attention mask."""
    logits = model(input_ids=BATCH.input_ids, attention_mask=BATCH.attention_mask.long()).logits
    picked = logits.log_softmax(-1)[:, :-1].gather(2, BATCH.input_ids[:, 1:, None])[..., 0]
    return picked.gather(1, BATCH.response_positions - 1) * BATCH.response_mask


def scores(shared: SharedModel) -> torch.Tensor:
    with torch.no_grad():
        return shared.scores(BATCH, shared.trunk(BATCH))


# The policy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("adapter", "with_value_head"), [(REFERENCE, False), (POLICY, True)])
def test_a_policy_opens_as_a_peft_model(kind: str, adapter: str, with_value_head: bool, tmp_path: Path) -> None:
    shared = on_disk(tmp_path / "base", kind)
    save_policy(shared, adapter, tmp_path / "final", with_value_head=with_value_head)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    found = plain_logprobs(PeftModel.from_pretrained(base, tmp_path / "final").eval())
    assert torch.allclose(found, logprobs(shared, adapter), rtol=0, atol=1e-5)
    assert not torch.allclose(found, logprobs(shared, None), atol=0.05)
    assert (tmp_path / "final" / "value_head.safetensors").exists() is with_value_head


def test_a_policy_names_its_base_and_brings_its_tokenizer(tmp_path: Path) -> None:
    shared = on_disk(tmp_path / "base")
    save_policy(shared, POLICY, tmp_path / "final", with_value_head=True)
    opened = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "final").eval()
    assert torch.allclose(plain_logprobs(opened), logprobs(shared, POLICY), rtol=0, atol=1e-5)
    made = AutoTokenizer.from_pretrained(tmp_path / "final")
    assert made("oak pine <end>").input_ids == shared.template.tokenizer("oak pine <end>").input_ids
    assert made.chat_template == CHAT


def test_a_policy_comes_back_with_its_value_head(tmp_path: Path) -> None:
    shared = on_disk(tmp_path / "base")
    save_policy(shared, POLICY, tmp_path / "final", with_value_head=True)
    other = shared_model()
    load_policy(other, POLICY, tmp_path / "final")
    assert torch.equal(logprobs(other, POLICY), logprobs(shared, POLICY))
    assert torch.equal(other.value_head.linear.weight, shared.value_head.linear.weight)


def test_an_adapter_of_other_settings_is_refused(tmp_path: Path) -> None:
    save_policy(on_disk(tmp_path / "base"), POLICY, tmp_path / "final", with_value_head=True)
    with pytest.raises(ModelError, match=r"trained with other values of adapters\.layers"):
        load_policy(shared_model(adapted=3), POLICY, tmp_path / "final")


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_policy(on_disk(tmp_path / "base"), POLICY, tmp_path / name, with_value_head=True)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert first == second


# The reward model


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_opens_as_a_sequence_classifier_with_its_head(kind: str, tmp_path: Path) -> None:
    shared = on_disk(tmp_path / "base", kind)
    save_reward_model(shared, tmp_path / "final", CALIBRATION)
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    model = PeftModel.from_pretrained(base, tmp_path / "final").eval()
    with torch.no_grad():
        found = model(input_ids=BATCH.input_ids, attention_mask=BATCH.attention_mask.long()).logits[:, 0]
    ours = scores(shared)
    assert torch.isfinite(found).all() and float(found.std()) > 0.1
    assert torch.allclose(found - found[0], ours - ours[0], rtol=0, atol=1e-5)  # differences alone mean anything
    assert torch.allclose(ours - found, torch.tensor(0.7), atol=1e-5)  # the constant is our bias
    told = json.loads((tmp_path / "final" / "calibration.json").read_text())
    assert {name: told[name] for name in CALIBRATION} == CALIBRATION
    assert told["applied"] is True and "already" in told["note"]


def test_where_the_base_pads_with_its_end_the_exported_tokenizer_says_what_to_pad_with(tmp_path: Path) -> None:
    # The plain class reads the score at the last token that is not padding: with pad = end, one token too early.
    random_model(pad_token_id=1).save_pretrained(tmp_path / "base")
    shared = shared_model(name=str(tmp_path / "base"), made=tokenizer(pad_token=END), pad_token_id=1)
    stir(shared, REWARD)
    save_reward_model(shared, tmp_path / "final", CALIBRATION)
    pad_id = AutoTokenizer.from_pretrained(tmp_path / "final").pad_token_id
    assert pad_id == shared.template.pad_id != shared.template.end_id
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1, pad_token_id=pad_id)
    model = PeftModel.from_pretrained(base, tmp_path / "final").eval()
    batch = pad_batch(MADE, pad_id=pad_id)
    with torch.no_grad():
        found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits[:, 0]
        ours = shared.scores(batch, shared.trunk(batch))
    assert torch.allclose(found - found[0], ours - ours[0], rtol=0, atol=1e-5)


def test_a_reward_model_comes_back(tmp_path: Path) -> None:
    shared = on_disk(tmp_path / "base")
    save_reward_model(shared, tmp_path / "final", CALIBRATION)
    other = shared_model(seed=0)
    load_reward_model(other, tmp_path / "final")
    assert torch.equal(scores(other), scores(shared))


# Every weight


def test_a_whole_model_opens_as_an_ordinary_checkpoint(tmp_path: Path) -> None:
    shared = on_disk(tmp_path / "base")
    with torch.no_grad():
        for parameter in shared.backbone.model.model.layers[0].parameters():
            parameter.mul_(1.1)  # as full fine-tuning does
    save_whole_model(shared, tmp_path / "final")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert torch.allclose(plain_logprobs(opened), logprobs(shared, None), rtol=0, atol=1e-5)
    assert not any("lora" in name or ".base." in name for name in opened.state_dict())
    assert AutoTokenizer.from_pretrained(tmp_path / "final").chat_template == CHAT
    assert is_whole(tmp_path / "final")


def test_a_whole_model_pads_as_its_tokenizer_does(tmp_path: Path) -> None:
    shared = shared_model(made=tokenizer(pad_token=END), pad_token_id=1)
    save_whole_model(shared, tmp_path / "final")
    config = json.loads((tmp_path / "final" / "config.json").read_text())
    assert config["pad_token_id"] == AutoTokenizer.from_pretrained(tmp_path / "final").pad_token_id != 1


def test_a_tokenizer_with_several_templates_is_saved_with_all_of_them(tmp_path: Path) -> None:
    shared = shared_model(made=tokenizer({"default": CHAT, "tool_use": CHAT + "<assistant>"}))
    stir(shared, POLICY)
    save_policy(shared, POLICY, tmp_path / "policy", with_value_head=True)
    save_whole_model(shared, tmp_path / "whole")
    for name in ("policy", "whole"):
        assert is_whole(tmp_path / name)
        assert AutoTokenizer.from_pretrained(tmp_path / name).chat_template == shared.template.tokenizer.chat_template


# Damage and full disks


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("adapter_model.safetensors", b"x", "the checksum of adapter_model.safetensors differs"),
        ("adapter_model.safetensors", None, "adapter_model.safetensors is missing"),
        ("adapter_config.json", b"{}", "the checksum of adapter_config.json differs"),
        ("manifest.json", b"{", "manifest.json cannot be read"),
    ],
)
def test_a_damaged_final_is_refused_by_the_name_of_the_file(
    tmp_path: Path, file: str, content: bytes | None, problem: str
) -> None:
    shared = on_disk(tmp_path / "base")
    final = tmp_path / "final"
    save_policy(shared, POLICY, final, with_value_head=True)
    save_reward_model(shared, tmp_path / "reward", CALIBRATION)
    for directory, load in ((final, lambda: load_policy(shared, POLICY, final)), (tmp_path / "reward", None)):
        assert is_whole(directory)
        (directory / file).unlink() if content is None else (directory / file).write_bytes(content)
        assert not is_whole(directory)
        with pytest.raises(RunError) as error:
            load() if load else load_reward_model(shared, directory)
        assert str(directory) in str(error.value) and problem in str(error.value)
        assert "remove it and run its phase again" in str(error.value)


def test_a_missing_final_is_refused(tmp_path: Path) -> None:
    assert not is_whole(tmp_path / "final")
    with pytest.raises(RunError, match=r"manifest\.json is missing"):
        load_policy(shared_model(), POLICY, tmp_path / "final")


def test_a_full_disk_leaves_no_half_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = on_disk(tmp_path / "base")
    written = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "value_head.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"final: the disk is full; free some space"):
        save_policy(shared, POLICY, tmp_path / "final", with_value_head=True)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_full_disk_leaves_no_half_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # safetensors writes by itself and raises an error of its own.
    from safetensors import SafetensorError

    shared = on_disk(tmp_path / "base")

    def full(*ignored: object, **options: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(RunError, match=r"final: .*(No space left on device|the disk is full)"):
        save_whole_model(shared, tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
