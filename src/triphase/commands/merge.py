"""A run's policy as an ordinary checkpoint: adapters merged, nothing of Triphase left in it."""

from pathlib import Path

import torch

from triphase.commands.open_run import open_policy
from triphase.training.checkpoint import sealed_directory


def merge_policy(run: Path, to: Path) -> None:
    """Write the policy of a run to ``to`` as a Hugging Face checkpoint.

    The update B·A is added to each weight in float32 and rounded once to the base's number type.
    """
    shared, adapter, _ = open_policy(run)
    with sealed_directory(to) as folder, torch.no_grad():
        if adapter is not None:
            shared.adapters.merge(adapter)
        with shared.adapters.removed():
            shared.backbone.model.save_pretrained(folder)
        shared.template.tokenizer.save_pretrained(folder)
