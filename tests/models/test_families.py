"""What docs/models.md states about each family: parts, gradients, all three phases, and exports for plain libraries."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.models.families import FAMILIES, LAYERS, Family, line, tried
from tests.runs.small_run import do, settings, write_data
from tests.small import samples, shared_model, stir, tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as SCORING

from triphase.batches.padding import pad_batch
from triphase.datacheck.model_check import check_model
from triphase.demo.tiny import tiny_directory
from triphase.errors import ModelError
from triphase.models.loading import LoadedModel
from triphase.models.pretrained import experts_note
from triphase.models.quantization import linear_maps
from triphase.models.roles import POLICY, REWARD, SharedModel
from triphase.runs import pipeline
from triphase.settings.schema import AdapterSettings, ModelSettings
from triphase.training.finals import load_policy, save_policy
from triphase.training.reward_finals import load_reward_model, save_reward_model

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries' models
TABLE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
EACH = [pytest.param(name, marks=() if family.main else pytest.mark.slow, id=name) for name, family in FAMILIES.items()]
WHOLE = ("Gemma 4",)
"""Families that are not divided."""


def shared_of(family: Family, *, adapted: int | str = "all", name: str = "small") -> SharedModel:
    loaded = LoadedModel(family.model(), tokenizer(), name)
    return SharedModel(loaded, AdapterSettings(layers=adapted, rank=2, alpha=4.0), seed=0)


@pytest.mark.parametrize("name", EACH)
def test_the_table_says_what_is_found(name: str) -> None:
    assert line(name, tried(FAMILIES[name])) in TABLE


def test_the_table_has_each_family_once() -> None:
    rows = [row.split(" | ")[0].removeprefix("| ") for row in TABLE.splitlines() if " | `" in row and " | all |" in row]
    assert rows == list(FAMILIES)


@pytest.mark.parametrize("name", EACH)
def test_numbers_and_gradients_are_those_of_the_models_own_logits(name: str) -> None:
    shared = shared_of(FAMILIES[name], adapted="all" if name in WHOLE else LAYERS // 2)
    stir(shared, POLICY)
    shared.adapters.train_only(POLICY)
    made, temperature = samples(4), 0.7
    batch = pad_batch(made, pad_id=0)
    found = shared.policy_output(batch, shared.trunk(batch), adapter=POLICY, temperature=temperature, with_entropy=True)
    loss = torch.zeros(())
    for row, sample in enumerate(made):
        ids = torch.tensor([[*sample.prompt, *sample.response]])
        with shared.role(POLICY):
            logits = shared.backbone.model(input_ids=ids, use_cache=False).logits[0, len(sample.prompt) - 1 : -1]
        logits = logits.float().index_fill(-1, shared.absent, -1e30) if shared.absent is not None else logits.float()
        logprobs = (logits / temperature).log_softmax(-1)
        own = logprobs.gather(1, torch.tensor(sample.response)[:, None])[:, 0]
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        count = len(sample.response)
        assert torch.allclose(found.logprobs[row, :count], own, atol=2e-4)
        assert found.entropy is not None and torch.allclose(found.entropy[row, :count], entropy, atol=2e-4)
        loss = loss + (own * torch.arange(1, count + 1)).sum() + entropy.sum()
    weights = torch.arange(1, found.logprobs.shape[1] + 1)
    (found.logprobs * weights).sum().add(found.entropy.sum()).backward()
    parameters = list(shared.adapters.parameters(POLICY).values())
    wanted = torch.autograd.grad(loss, parameters)
    for parameter, expected in zip(parameters, wanted, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, expected, rtol=1e-3, atol=1e-3 * max(1.0, float(expected.abs().max())))
    assert any(float(each.abs().max()) > 1e-3 for each in wanted)


@pytest.mark.parametrize("name", EACH)
def test_what_is_exported_says_the_same_in_plain_libraries(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    base = tmp_path / "base"
    shared = shared_of(family, adapted="all" if name in WHOLE else LAYERS // 2, name=str(base))
    stir(shared, POLICY)
    stir(shared, REWARD, seed=1)
    with shared.adapters.removed():
        shared.backbone.model.save_pretrained(base)
    same_as_plain(shared, base, tmp_path)


def same_as_plain(shared: SharedModel, base: Path, folder: Path) -> None:
    """Policy and reward model, written and opened by peft and transformers, give the numbers that they give here."""
    save_policy(shared, POLICY, folder / "policy", with_value_head=False)
    save_reward_model(shared, folder / "reward", {})
    sample = samples(1, prompt=(5, 5), response=(4, 4))[0]
    batch, ids = pad_batch([sample], pad_id=0), torch.tensor([[*sample.prompt, *sample.response]])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder / "policy").eval()
    with torch.no_grad():
        with shared.role(POLICY):
            own = shared.backbone.model(input_ids=ids, use_cache=False).logits
        assert torch.allclose(plain(input_ids=ids, use_cache=False).logits, own, atol=2e-3)
        assert not torch.allclose(shared.backbone.model(input_ids=ids, use_cache=False).logits, own, atol=1e-2)
        card = (folder / "reward" / "README.md").read_text()
        if shared.backbone.model.config.model_type not in SCORING:
            assert "has no AutoModelForSequenceClassification for the type" in card
            return
        assert "has no AutoModelForSequenceClassification" not in card
        whole = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
        score = PeftModel.from_pretrained(whole, folder / "reward").eval()(input_ids=ids).logits[0, 0]
        wanted = shared.scores(batch, shared.trunk(batch))[0] - shared.score_head.linear.bias[0]
        assert float(score) == pytest.approx(float(wanted), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_run_goes_through_all_phases(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    # The words are split at white space, which the tokenizer classes of some families undo.
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", PreTrainedTokenizerFast.from_pretrained)
    write_data(tmp_path)
    base = tmp_path / "base"
    own = AutoTokenizer.from_pretrained(tiny_directory() / "model")
    family.model(vocab_size=len(own)).save_pretrained(base)
    own.save_pretrained(base)
    model = {"name": str(base), "dtype": "float32", "max_length": 48}
    layers = {"layers": "all" if name in WHOLE else 2, "rank": 2}
    reward = {"head_penalty": 0.1, "require_better_than_chance": False}
    chosen = settings(tmp_path, method="lora", model=model, adapters=layers, reward=reward)
    check_model(chosen)
    steps = (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward, pipeline.run_ppo)
    run = do(chosen, *steps)
    shared = run.model()
    load_policy(shared, POLICY, run.artifact("ppo"))
    load_reward_model(shared, run.artifact("reward"))
    assert all(bool(torch.isfinite(value).all()) for value in shared.adapters.state(POLICY).values())
    assert any(float(v.abs().max()) > 0 for n, v in shared.adapters.state(POLICY).items() if "lora_B" in n)


# What is refused is refused by `check`, which has shapes alone


def test_a_trunk_that_cannot_run_is_refused_by_check_and_run_alike(tmp_path: Path) -> None:
    FAMILIES["Gemma 4"].model().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    chosen = settings(tmp_path, model={"name": str(tmp_path), "max_length": 32}, adapters={"layers": 2})
    words: list[Any] = []
    for attempt in (lambda: check_model(chosen), lambda: shared_of(FAMILIES["Gemma 4"], adapted=2)):
        with pytest.raises(ModelError, match="Gemma4ForCausalLM cannot be split at layer 2: each of") as caught:
            attempt()
        assert "adapters.layers: all" in str(caught.value)
        words.append(str(caught.value))
    check_model(chosen.model_copy(update={"adapters": AdapterSettings(layers="all")}))


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if "experts" in family.note])
def test_experts_are_named_and_have_no_adapter_and_all_bits(name: str) -> None:
    shared = shared_of(FAMILIES[name])
    note = str(experts_note(shared.backbone.model.config))
    assert "the model has 4 experts" in note and "neither an adapter nor model.quantization" in note
    owners = {type(owner).__name__ for owner, _, _ in linear_maps(shared.backbone.model, "int8")}
    assert owners and not any("Experts" in owner for owner in owners)
    stir(shared, POLICY)
    paths = list(shared.adapters.parameters(POLICY))
    held = {id(value) for value in shared.adapters.parameters(POLICY).values()}
    experts = [n for n, v in shared.backbone.model.named_parameters() if ".experts" in n and id(v) not in held]
    assert experts and paths and not any(".experts" in path for path in paths)
    assert experts_note(FAMILIES["Qwen 3"].model().config) is None


def test_states_narrower_than_the_configuration_says_are_refused() -> None:
    with pytest.raises(ModelError, match="returns hidden states of size 16, but"):
        shared_model("opt", adapted="all", ffn_dim=48, word_embed_proj_dim=16)


def test_all_ends_of_the_model_end_a_response() -> None:
    shared = shared_of(FAMILIES["Qwen 3"])
    assert shared.template.ends == (1,)
    model = FAMILIES["Qwen 3"].model()
    model.generation_config.eos_token_id = [7, 1]
    ends = SharedModel(LoadedModel(model, tokenizer(), "small"), AdapterSettings(layers="all"), seed=0).template.ends
    assert ends == (1, 7)
    assert ModelSettings(name="x").chat_template is None
