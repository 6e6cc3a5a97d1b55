"""The families of models that are tried, by small configurations of random weights, and what each of them can.

`python -m tests.models.families docs/models.md` writes the table there; the tests compare it with what they find.
"""

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.small import random_model
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as SCORING

from triphase.errors import ModelError
from triphase.models.adapters import Adapters
from triphase.models.backbone import Backbone
from triphase.models.direct import FastDecoder
from triphase.models.stepping import HFDecoder, stepper_for

LAYERS = 4


@dataclass(frozen=True)
class Family:
    """A model family: its usual name, its `model_type`, and what its small configuration needs besides sizes."""

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    main: bool = False

    def model(self, seed: int = 0, **more: Any) -> Any:
        """One of four layers."""
        return random_model(self.kind, layers=LAYERS, seed=seed, **{**self.config, **more})


_GPT = {"n_embd": 32, "n_head": 4, "n_layer": LAYERS, "n_positions": 64}
_EXPERTS = "adapters do not change the experts (a note says so); `full` trains them"
_HYBRID = ["linear_attention", "full_attention"] * (LAYERS // 2)
FAMILIES: dict[str, Family] = {
    "Llama 2 and 3, SmolLM 2": Family("llama", main=True),
    "Mistral": Family("mistral", {"sliding_window": 8}, "a window"),
    "Mistral without a window (v0.2 on)": Family("mistral", {"sliding_window": None}),
    "Qwen 2 and 2.5": Family("qwen2", main=True),
    "Qwen 3": Family("qwen3", main=True),
    "Qwen 3.5": Family("qwen3_5_text", {"layer_types": _HYBRID}, "linear attention in some layers"),
    "Gemma": Family("gemma", {"hidden_act": "gelu_pytorch_tanh"}),
    "Gemma 2": Family("gemma2", {"final_logit_softcapping": 2.0, "sliding_window": 8}, "logits capped", main=True),
    "Gemma 3": Family("gemma3_text", {"sliding_window": 8}, "windows in some layers"),
    "Gemma 4": Family(
        "gemma4_text",
        {"sliding_window": 8, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 26},
        "each layer reads the tokens: `adapters.layers: all`",
    ),
    "Phi 1 and 2": Family("phi", {}, "a bias in the head"),
    "Phi 3 and 4": Family("phi3"),
    "SmolLM 3": Family("smollm3"),
    "OLMo 2": Family("olmo2"),
    "OLMo 3": Family("olmo3", {"sliding_window": 8}, "windows in some layers"),
    "Granite": Family(
        "granite",
        {"logits_scaling": 3.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
        "logits divided",
        main=True,
    ),
    "Cohere Command R": Family("cohere", {"logit_scale": 0.5}, "logits scaled", main=True),
    "Cohere Command R7B, A": Family("cohere2", {"logit_scale": 0.5, "sliding_window": 8}, "logits scaled, windows"),
    "StableLM": Family("stablelm"),
    "GPT-NeoX, Pythia": Family("gpt_neox", main=True),
    "GPT-2": Family("gpt2", _GPT, "`Conv1D` maps", main=True),
    "GPT-J": Family("gptj", {**_GPT, "rotary_dim": 4}, "a bias in the head"),
    "OPT": Family("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, "350M is refused: its states are narrower"),
    "Falcon": Family("falcon", {"head_dim": None, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "BLOOM": Family("bloom", {"n_head": 4, "n_layer": LAYERS}),
    "StarCoder 2": Family("starcoder2"),
    "GLM 4": Family("glm4"),
    "Mixtral": Family("mixtral", {"num_local_experts": 4}, _EXPERTS),
    "Qwen 3 MoE": Family(
        "qwen3_moe", {"num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2}, _EXPERTS
    ),
    "OLMoE": Family("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}, _EXPERTS),
    "GPT-OSS": Family("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}, _EXPERTS),
    "LFM 2": Family("lfm2", {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)}, "convolutions in some layers"),
    "Mamba": Family("mamba", {}, "a state instead of attention"),
}
_DECODING = {FastDecoder: "own kernels", HFDecoder: "the model's cache"}
_MARK = re.compile(r"(<!-- families -->\n).*(<!-- /families -->)", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """What a family supports, as tested."""

    trunk: bool
    shared_prompts: bool
    decoding: str
    adapted: tuple[str, ...]


def tried(family: Family) -> Found:
    """Divide it, pack it, step it, wrap it."""
    model = family.model()
    whole = Backbone(model, adapted_layers=None)
    try:
        divides = Backbone(model, adapted_layers=LAYERS // 2).trunk_layers == LAYERS // 2
    except ModelError:
        divides = False
    decoding = _DECODING.get(stepper_for(whole), "the full pass")
    adapters = Adapters(whole, rank=2, alpha=4.0, targets="all-linear", seed=0)
    return Found(divides, whole.packs, decoding, adapters.targets)


def line(name: str, found: Found) -> str:
    """The line of a family in the table."""
    family = FAMILIES[name]
    said = ["yes" if each else "no" for each in (found.trunk, found.shared_prompts)]
    opens = "both" if family.kind in SCORING else "policy"
    return f"| {name} | `{family.kind}` | all | {said[0]} | {said[1]} | {found.decoding} | {opens} | {family.note} |"


def table() -> str:
    """The whole table."""
    columns = ("family", "`model_type`", "phases", "trunk", "shared prompts", "decoding by", "export", "")
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    return head + "".join(f"{line(name, tried(family))}\n" for name, family in FAMILIES.items())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    path = Path(sys.argv[1])
    text = path.read_text(encoding="utf-8")
    path.write_text(_MARK.sub(lambda found: found[1] + table() + found[2], text), encoding="utf-8")
