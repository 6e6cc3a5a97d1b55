"""All checks of a model that need no weights: what `run` would refuse later is refused here.

The model is built on torch's meta device, whose tensors have shapes and no data, from the headers of the weights.
"""

import torch
from torch import nn

from triphase.errors import ModelError
from triphase.models.adapters import Adapters
from triphase.models.backbone import Backbone
from triphase.models.chain import Chain, errors_under
from triphase.models.merging import check_adapter
from triphase.models.pretrained import open_config, open_tokenizer, open_weights
from triphase.models.quantization import linear_maps, require_library
from triphase.settings.schema import AdapterSettings
from triphase.tokens.template import Template


def check_chain(chain: Chain, adapters: AdapterSettings, *, max_length: int) -> None:
    """Refuse a model that cannot be opened, divided or adapted. Weights of a hub id are not downloaded.

    Raises:
        ModelError: names the file, tensor or setting, and the remedy.
    """
    require_library(chain.settings.quantization)
    config = open_config(chain.base, chain.settings)
    tokenizer = open_tokenizer(chain.tokenizer, chain.settings)
    if chain.directory is None:
        rows = getattr(config.get_text_config(), "vocab_size", None)
        if isinstance(rows, int):
            require_rows(Template(tokenizer), rows, chain.name)
        return
    # Shapes alone are compared: a run chooses the dtype, whatever the configuration has.
    model = open_weights(chain.base, chain.settings, device_map="meta", dtype=torch.float32)
    for adapter in chain.adapters:
        with errors_under(chain.setting_of(adapter)):
            check_adapter(model, adapter)
    if chain.settings.quantization is not None:
        linear_maps(model, chain.settings.quantization)
    layers = None if adapters.layers == "all" else adapters.layers
    backbone = Backbone(model, adapted_layers=layers, verified=False)
    Adapters(backbone, rank=adapters.rank, alpha=adapters.alpha, targets=adapters.targets, seed=0)
    require_positions(backbone, max_length)
    template = Template(tokenizer)
    template.also_ends(getattr(model.generation_config, "eos_token_id", None))
    if not chain.adapters:  # which may bring their own rows
        require_rows(template, len(backbone.head_weight), chain.name)


def require_positions(backbone: Backbone, max_length: int) -> None:
    """Check that a model with learned positions has enough of them for ``max_length`` tokens.

    Raises:
        ModelError: names both lengths.
    """
    for name, module in backbone.model.get_decoder().named_modules():
        learned = isinstance(module, nn.Embedding) and ("pos" in name or name.endswith("wpe"))
        offset = int(getattr(module, "offset", 0))
        if learned and module.num_embeddings - offset < max_length:
            raise ModelError(
                f"model.max_length = {max_length}, but the model has positions for {module.num_embeddings - offset} "
                "tokens; lower it"
            )


def require_rows(template: Template, rows: int, name: str) -> None:
    """Refuse a tokenizer whose end of turn or padding has no row in the embedding.

    Raises:
        ModelError: names the token and the two sizes.
    """
    size = len(template.tokenizer)
    for what, token in (("end of turn", template.end_id), ("padding token", template.pad_id)):
        if token >= rows:
            text = template.tokenizer.convert_ids_to_tokens(token)
            raise ModelError(
                f"model.name: {name!r}: the {what} {text} has the id {token}, but the model has {rows} rows for the "
                f"{size} tokens of its tokenizer; enlarge it (model.resize_token_embeddings({size})) and save both "
                "with save_pretrained(…), or name a special token below that id in tokenizer_config.json"
            )
