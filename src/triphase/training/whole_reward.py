"""A reward model as an ordinary checkpoint: `AutoModelForSequenceClassification` opens it without peft.

The adapter must have been merged into the base. The class has no bias, so scores differ from ours by one constant,
which `config.json` contains in the format of OpenRLHF's loader: `value_head_prefix` names the head, and with
`normalize_reward` the score is (head - `mean`) / `std`.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

from triphase.errors import RunError
from triphase.models.roles import SharedModel
from triphase.training.artifacts import written
from triphase.training.reward_card import whole_reward_card
from triphase.training.reward_finals import scoring_tokenizer


def save_whole_reward_model(shared: SharedModel, directory: Path) -> None:
    """Write the base with the score head instead of the language-model head.

    Raises:
        RunError: transformers has no sequence classifier for this architecture, or the disk is full.
    """
    kind = shared.backbone.model.config.model_type
    if kind not in KNOWN:
        raise RunError(
            f"transformers has no AutoModelForSequenceClassification for the type {kind}; --adapter copies the adapter "
            "with its head"
        )
    tokenizer, cuts = scoring_tokenizer(shared)
    with shared.adapters.removed():
        whole = _classifier(shared)
        with written(directory, None) as folder:
            whole.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            (folder / "README.md").write_text(whole_reward_card(shared, cuts=cuts), encoding="utf-8")


@torch.no_grad()
def _classifier(shared: SharedModel) -> Any:
    model: Any = shared.backbone.model
    config = copy.deepcopy(model.config)
    config.num_labels, config.problem_type, config.pad_token_id = 1, "regression", shared.template.pad_id
    classes: Any = AutoModelForSequenceClassification
    whole = classes.from_config(config, dtype=shared.backbone.dtype)
    getattr(whole, whole.base_model_prefix).load_state_dict(getattr(model, model.base_model_prefix).state_dict())
    whole.score.weight.copy_(shared.score_head.linear.weight)
    bias = shared.score_head.linear.bias.item()
    whole.config.value_head_prefix, whole.config.mean, whole.config.std = "score", -bias, 1.0
    return whole
