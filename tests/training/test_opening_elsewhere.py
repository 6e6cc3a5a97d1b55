"""Exports in other tools: OpenRLHF's loading of reward models, TRL's trainers, the requirements of llama.cpp."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tests.small import WORDS, random_model, shared_model, stir, tokenizer
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from triphase.batches.padding import pad_batch
from triphase.demo.embedded import model_directory
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, REWARD, SharedModel
from triphase.records.types import Message
from triphase.settings.schema import AdapterSettings, ModelSettings
from triphase.tokens.encoding import Encoded
from triphase.training.finals import save_whole_model
from triphase.training.whole_reward import save_whole_reward_model

BIAS = 0.7
# Turns end with <turn>, a newline behind it, which is not what tokenizer and base call their end of sequence.
TURNS = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} <turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
ASKED = [("oak pine", "red"), ("oak pine", "green blue"), ("elm", "fir three"), ("elm", "grey"),
         ("ash birch", "one"), ("ash birch", "two four one")]  # fmt: skip


def trained(folder: Path, adapter: str, **sizes: Any) -> SharedModel:
    """A model whose ``adapter`` is merged, as an export does."""
    size = 6 + len(WORDS) + 1
    model = random_model(vocab_size=size, **sizes)
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder / "base")
    shared = shared_model(name=str(folder / "base"), made=tokenizer(TURNS, extra=["<turn>"]), vocab_size=size, **sizes)
    stir(shared, adapter)
    with torch.no_grad():
        shared.score_head.linear.bias.fill_(BIAS)
    return shared


def our_scores(shared: SharedModel, asked: list[tuple[str, str]]) -> Tensor:
    """With the reward adapter still on."""
    template = shared.template
    samples = [
        Encoded(tuple(template.prompt_ids([Message("user", prompt)])), tuple(template.response_ids(text)))
        for prompt, text in asked
    ]
    batch = pad_batch(samples, pad_id=template.pad_id)
    with torch.no_grad():
        return shared.scores(batch, shared.trunk(batch))


def exported_reward(folder: Path) -> Path:
    shared = trained(folder, REWARD)
    shared.adapters.merge(REWARD)
    save_whole_reward_model(shared, folder / "reward")
    return folder / "reward"


def rendered(directory: Path, asked: list[tuple[str, str]]) -> Any:
    made = AutoTokenizer.from_pretrained(directory)
    talks = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": text}] for prompt, text in asked]
    return made.apply_chat_template(talks, padding=True, return_tensors="pt", return_dict=True)


def by_config(directory: Path, inputs: Any, *, normalized: bool) -> Tensor:
    """The scores as OpenRLHF's loader defines them: base and head by their names in the checkpoint, the head's name,
    mean and deviation by ``config.json``, the value of the last token that the mask has."""
    config = AutoConfig.from_pretrained(directory)
    base: Any = AutoModel._model_mapping[type(config)]

    class Scorer(base.__base__):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            setattr(self, self.base_model_prefix, base(config))
            setattr(self, config.value_head_prefix, torch.nn.Linear(config.hidden_size, 1, bias=False))
            self.post_init()

    model, found = Scorer.from_pretrained(directory, output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    mask = inputs["attention_mask"]
    with torch.no_grad():
        states = getattr(model.eval(), model.base_model_prefix)(inputs["input_ids"], attention_mask=mask)[0]
        values = getattr(model, config.value_head_prefix)(states)[:, :, 0]
    last = mask.cumsum(1).argmax(1)
    scores = values[torch.arange(len(last)), last]
    return (scores - config.mean) / config.std if normalized else scores


def test_openrlhf_finds_head_and_bias_by_the_configuration(tmp_path: Path) -> None:
    ours = our_scores(trained(tmp_path, REWARD), ASKED)
    directory = exported_reward(tmp_path)
    inputs = rendered(directory, ASKED)
    assert torch.allclose(by_config(directory, inputs, normalized=True), ours, rtol=0, atol=1e-5)
    assert torch.allclose(by_config(directory, inputs, normalized=False), ours - BIAS, rtol=0, atol=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    with torch.no_grad():
        logits = plain(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    assert torch.allclose(logits + BIAS, ours, rtol=0, atol=1e-5)
    card = (directory / "README.md").read_text()
    assert all(word in card for word in ("RewardTrainer", "GRPOTrainer", "value_head_prefix"))


def ends_of(directory: Path) -> list[int]:
    """The tokens that end a response of an exported policy."""
    found = json.loads((directory / "generation_config.json").read_text())["eos_token_id"]
    return found if isinstance(found, list) else [found]


def test_llama_cpp_finds_what_it_converts(tmp_path: Path) -> None:
    """The names of all tensors, the chat template and the end of turn, by the library that its converter uses."""
    shared = trained(tmp_path, POLICY)
    shared.adapters.merge(POLICY)
    save_whole_model(shared, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    from safetensors import safe_open

    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        names = list(file.keys())
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    unknown = [name for name in names if known.get_name(name, try_suffixes=(".weight", ".bias")) is None]
    assert names and not unknown
    vocabulary = gguf.SpecialVocab(tmp_path / "out", load_merges=False)
    assert vocabulary.chat_template == TURNS
    assert vocabulary.special_token_ids["eos"] in ends_of(tmp_path / "out")


@pytest.mark.peers
def test_llama_cpp_converts_the_policy_without_loss(tmp_path: Path) -> None:
    """Its own converter, on the embedded model with a merged adapter; transformers opens the file that it writes."""
    model = ModelSettings.model_validate({"name": str(model_directory("embedded:smollm2")), "dtype": "bfloat16"})
    shared = SharedModel(load_model(model), AdapterSettings.model_validate({"layers": 2, "rank": 4}), seed=0)
    shared.adapters.add(POLICY)
    stir(shared, POLICY)
    shared.adapters.merge(POLICY)
    save_whole_model(shared, tmp_path / "out")
    converter = Path(os.environ["TRIPHASE_LLAMA_CPP"]) / "convert_hf_to_gguf.py"
    words = [os.environ["TRIPHASE_TRL_PYTHON"], str(converter), str(tmp_path / "out"), "--outtype", "f32"]
    done = subprocess.run(
        [*words, "--outfile", str(tmp_path / "policy.gguf")],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="policy.gguf", dtype=torch.float32)
    weights = theirs.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.state_dict().items())
    tokenizers = (
        AutoTokenizer.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path, gguf_file="policy.gguf"),
    )
    talk = [{"role": "user", "content": "How are you?"}]
    ids = [made.apply_chat_template(talk, add_generation_prompt=True)["input_ids"] for made in tokenizers]
    assert ids[0] == ids[1] and theirs.generation_config.eos_token_id in ends_of(tmp_path / "out")
    for question in ("How are you?", "Name three trees.", "What does a lighthouse do?"):
        assert said_by_llama_cpp(tmp_path / "policy.gguf", tokenizers[0], question) == said(
            ours, tokenizers[0], question
        )


def said(model: Any, made: Any, question: str) -> str:
    """Greedily, at most 24 tokens."""
    ids = torch.tensor([made.encode(asked_of(made, question), add_special_tokens=False)])
    found = model.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :]
    return str(made.decode(found, skip_special_tokens=True)).strip()


def said_by_llama_cpp(weights: Path, made: Any, question: str) -> str:
    program = Path(os.environ["TRIPHASE_LLAMA_CPP"]) / "build" / "bin" / "llama-completion"
    words = [
        str(program),
        "--model",
        str(weights),
        "--prompt",
        asked_of(made, question),
        "--predict",
        "24",
        "--temp",
        "0",
    ]
    flags = ["--no-conversation", "--no-display-prompt", "--no-warmup", "--threads", "1"]
    done = subprocess.run([*words, *flags], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.removesuffix("\n").replace("[end of text]", "").strip()


def asked_of(made: Any, question: str) -> str:
    talk = [{"role": "user", "content": question}]
    return str(made.apply_chat_template(talk, add_generation_prompt=True, tokenize=False))


@pytest.mark.peers
def test_trl_opens_reward_model_and_policy(tmp_path: Path) -> None:
    ours = our_scores(trained(tmp_path, REWARD), ASKED)
    reward = exported_reward(tmp_path)
    shared = trained(tmp_path, POLICY)
    shared.adapters.merge(POLICY)
    save_whole_model(shared, tmp_path / "policy")
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    script = Path(__file__).with_name("trl_opens.py")
    words = [os.environ["TRIPHASE_TRL_PYTHON"], str(script), str(reward), str(tmp_path / "policy"), str(tmp_path / "x")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["ours"]
    assert torch.allclose(torch.tensor(found["scores"]) + BIAS, ours, rtol=0, atol=1e-5)
    heard = our_scores(trained(tmp_path, REWARD), list(zip(found["asked"], found["said"], strict=True)))
    assert len(heard) == 4
    assert found["mean"] + BIAS == pytest.approx(float(heard.mean()), abs=1e-5)
