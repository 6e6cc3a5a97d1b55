"""Small things to test the layers with: decoders of random weights, word-level tokenizers, samples, a metrics list."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from triphase.models.loading import LoadedModel
from triphase.models.roles import SharedModel
from triphase.settings.schema import AdapterSettings
from triphase.tokens.encoding import Encoded

WORDS = tuple(
    "ash birch cedar elm fir hazel larch maple oak pine rowan willow red green blue grey one two three four".split()
)
PAD, END, UNKNOWN, USER, ASSISTANT, SYSTEM = "<pad>", "<end>", "<unknown>", "<user>", "<assistant>", "<system>"
SPECIAL = (PAD, END, UNKNOWN, USER, ASSISTANT, SYSTEM)
CHAT = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def tokenizer(
    template: str | dict[str, str] | None = CHAT, *, extra: Sequence[str] = (), **special: str | None
) -> PreTrainedTokenizerFast:
    """One token a word. ``special`` overrides pad_token, eos_token and unk_token; None leaves one out."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *WORDS, *extra))}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN, **special}
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain, **{name: token for name, token in named.items() if token is not None}
    )
    made.add_tokens([AddedToken(token, special=True) for token in (USER, ASSISTANT, SYSTEM, *extra)])
    if template is not None:
        made.chat_template = template
    return made


def random_model(kind: str = "llama", *, layers: int = 4, seed: int = 0, **config: Any) -> Any:
    """A decoder of a family of transformers, with weights so large that every layer matters."""
    sizes = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "initializer_range": 0.15,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = {name: value for name, value in {**sizes, **config}.items() if name != "head_dim" or value is not None}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given), dtype=torch.float32)
        for parameter in model.parameters():  # biases and norms off their neutral start
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval().requires_grad_(False)


def shared_model(
    kind: str = "llama",
    *,
    adapted: int | str = 2,
    layers: int = 4,
    rank: int = 4,
    seed: int = 0,
    made: Any = None,
    name: str = "small",
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> SharedModel:
    """Four roles on a small decoder; ``made`` is the caller's own tokenizer."""
    model = random_model(kind, layers=layers, seed=seed, **config).to(dtype)
    loaded = LoadedModel(model, made or tokenizer(), name)
    return SharedModel(loaded, AdapterSettings(layers=adapted, rank=rank, alpha=2.0 * rank), seed=seed)


@torch.no_grad()
def stir(shared: SharedModel, adapter: str, *, seed: int = 0, by: float = 0.2) -> None:
    """Add the adapter where it is absent, and give it an update that changes something."""
    draw = torch.Generator().manual_seed(seed)
    shared.adapters.add(adapter)
    for name, parameter in shared.adapters.parameters(adapter).items():
        if "lora_B" in name:
            parameter.copy_(by * torch.randn(parameter.shape, generator=draw))


def samples(
    count: int, *, seed: int = 0, prompt: tuple[int, int] = (2, 7), response: tuple[int, int] = (1, 8)
) -> list[Encoded]:
    """Random prompts and responses of random lengths, both ends included; each response ends with the end token."""
    draw = random.Random(seed)

    def words(bounds: tuple[int, int]) -> list[int]:
        return [draw.randrange(len(SPECIAL), len(SPECIAL) + len(WORDS)) for _ in range(draw.randint(*bounds))]

    return [Encoded(tuple(words(prompt)), (*words((response[0] - 1, response[1] - 1)), 1)) for _ in range(count)]


class Lines:
    """Metrics in memory, by step; a gap or a double is an error."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        assert step == len(self.rows) + 1, f"step {step} after {len(self.rows)}"
        self.rows[step] = dict(values)

    def truncate_after(self, step: int) -> None:
        self.rows = {key: row for key, row in self.rows.items() if key <= step}

    def plain(self) -> dict[int, dict[str, float]]:
        """Without what the clock decides."""
        return {
            step: {name: value for name, value in row.items() if "seconds" not in name}
            for step, row in self.rows.items()
        }


class ByHand:
    """A packing of a base in few bits without its library: symmetric int8 with a scale for each output."""

    widened_times = 0

    def packed(self, weight: Tensor) -> dict[str, Tensor]:
        scales = weight.abs().amax(1, keepdim=True) / 127
        return {"codes": (weight / scales).round().to(torch.int8), "scales": scales}

    def widened(self, kept: dict[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        ByHand.widened_times += 1
        assert kept["codes"].shape == shape
        return kept["codes"].to(dtype) * kept["scales"].to(dtype)
