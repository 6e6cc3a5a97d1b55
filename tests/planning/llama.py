"""The shape of Llama 3 with 8 billion parameters, without weights."""

from transformers import AutoConfig, PreTrainedConfig


def llama_8b() -> PreTrainedConfig:
    """Its configuration."""
    return AutoConfig.for_model(
        "llama",
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        tie_word_embeddings=False,
    )
