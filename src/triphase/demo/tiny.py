"""A tiny decoder, a grammar to learn and a gold score that can be exploited: all of RLHF in a minute.

The vocabulary has twelve words. A text continues its prompt by a Markov chain; the gold score rewards three of the
words (with diminishing returns), penalizes two, and penalizes repetition, length and texts that do not end. The model
starts
from random weights, so supervised fine-tuning is full fine-tuning here.
"""

import json
import math
import random
from pathlib import Path
from typing import Any

from triphase.demo.cache import cached_directory

WORDS = ("sun", "song", "friend", "river", "stone", "road", "mud", "rust", "tree", "wind", "rain", "field")
GOOD, BAD = frozenset(WORDS[:3]), frozenset(WORDS[6:8])
LONGEST = 20
_DEMONSTRATIONS, _TRAIN_PROMPTS, _HELDOUT_PROMPTS = 2400, 160, 40


def tiny_directory() -> Path:
    """Model and data of the tiny task: `model/`, `demonstrations.jsonl`, `prompts.jsonl`. Created once, in a second."""
    return cached_directory("tiny-1", _make)


def grammar_gold(prompt: str, response: str, finished: bool) -> float:
    """2·tanh(liked / 3) − 0.35·repeats − 0.08·(words − 10)⁺ − 1 if it does not end.

    liked counts good words as 1 and bad ones as −0.7; repeats counts each use of a word beyond its second.
    """
    words = response.split()
    liked = sum(word in GOOD for word in words) - 0.7 * sum(word in BAD for word in words)
    repeats = sum(max(0, words.count(word) - 2) for word in set(words))
    return 2 * math.tanh(liked / 3) - 0.35 * repeats - 0.08 * max(0, len(words) - 10) - (not finished)


def _make(directory: Path) -> None:
    draw = random.Random(1)  # noqa: S311 - a grammar, not a secret
    weights = {word: [draw.random() ** 3 for _ in WORDS] for word in WORDS}
    prompts: list[str] = []
    while len(prompts) < _TRAIN_PROMPTS + _HELDOUT_PROMPTS:
        prompt = " ".join(draw.choices(WORDS, k=3))
        if prompt not in prompts:
            prompts.append(prompt)
    train = prompts[:_TRAIN_PROMPTS]
    _write(
        directory / "prompts.jsonl",
        [
            {"id": f"t{index:03d}", "prompt": prompt, "split": "train" if index < _TRAIN_PROMPTS else "heldout"}
            for index, prompt in enumerate(prompts)
        ],
    )
    rows = []
    for index in range(_DEMONSTRATIONS):
        prompt = train[index % len(train)]
        rows.append({"prompt": prompt, "completion": _continue(prompt, weights, draw), "kind": "domain"})
    _write(directory / "demonstrations.jsonl", rows)
    _write_model(directory / "model")


def _continue(prompt: str, weights: dict[str, list[float]], draw: random.Random) -> str:
    words = [prompt.split()[-1]]
    while len(words) <= LONGEST:
        words += draw.choices(WORDS, weights[words[-1]])
        if len(words) > 2 and draw.random() < 0.1:
            break
    return " ".join(words[1:])


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_model(directory: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer_class: Any = PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(("<pad>", "<end>", "<unknown>", *WORDS))}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))  # noqa: S106 - no password
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unknown>"}
    tokenizer = tokenizer_class(tokenizer_object=plain, **tokens)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
