"""The `final/` directories, which plain libraries can load without Triphase.

A policy is a peft adapter (`PeftModel.from_pretrained`), or a whole checkpoint after full fine-tuning. Its
`generation_config.json` ends responses at the end token that the policy learned. A reward model is a peft adapter for
`AutoModelForSequenceClassification` with one label, including its score head. That class has no bias, so a plain
library computes scores that differ from ours by one constant; only differences are meaningful. It reads the last token
that is not padding, so the exported chat template ends at the end of turn. Each directory has a README.md with the
exact calls.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from transformers import GenerationConfig

from triphase.models.policies import Policy
from triphase.models.roles import POLICY, SharedModel
from triphase.training.adapter_files import ADAPTER_FILE, adapter_files, tensor_bytes, tensors_in
from triphase.training.artifacts import write, written
from triphase.training.cards import policy_card, whole_card

CRITIC_FILE = "critic.safetensors"


def save_policy(
    shared: SharedModel, adapter: str, directory: Path, *, with_value_head: bool, made_by: str | None = None
) -> None:
    """Write an adapter in peft's format; next to it, where peft does not look, the critic: head, and adapter if any.

    ``made_by`` is the fingerprint of the settings of its phase.
    """
    base = portable_name(shared.base_name)
    files = adapter_files(shared, shared.adapters.state(adapter), base, shared.template.tokenizer, task="CAUSAL_LM")
    files["generation_config.json"] = generation_config(shared).to_json_string().encode()
    files["README.md"] = policy_card(shared, base).encode()
    if with_value_head:
        files["value_head.safetensors"] = tensor_bytes(dict(shared.value_head.linear.state_dict()))
        if critic := shared.critic.parameters():
            files[CRITIC_FILE] = tensor_bytes({name: value.data for name, value in critic.items()})
    write(directory, files, made_by)


def load_policy(shared: SharedModel, adapter: str, directory: Path) -> None:
    """Read an adapter that `save_policy` wrote.

    Raises:
        RunError: it is missing or damaged.
    """
    shared.adapters.load(adapter, tensors_in(directory, ADAPTER_FILE))
    if (directory / "value_head.safetensors").exists():
        shared.value_head.linear.load_state_dict(tensors_in(directory, "value_head.safetensors"))


def save_trained(
    policy: Policy,
    directory: Path,
    *,
    with_critic: bool,
    made_by: str | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the policy of PPO: an adapter with its critic, or a whole model with the adapter merged.

    ``weights`` as in `save_whole_model`; the adapter is merged into them.
    """
    if policy.adapter == POLICY:
        save_policy(policy.model, POLICY, directory, with_value_head=with_critic, made_by=made_by)
        return
    policy.model.adapters.merge(policy.adapter, weights)
    save_whole_model(policy.model, directory, made_by, weights=weights)


def holds_whole_model(directory: Path) -> bool:
    """Whether the artifact of a policy's phase is all weights, and not an adapter."""
    return not (directory / ADAPTER_FILE).exists()


def save_whole_model(
    shared: SharedModel, directory: Path, made_by: str | None = None, *, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write every weight as an ordinary checkpoint (after full fine-tuning or merging).

    ``weights`` are those of a model that is divided among ranks, whole.

    Raises:
        RunError: the disk is full or cannot be written; the previous contents stay.
    """
    shared.backbone.model.generation_config = generation_config(shared)
    with written(directory, made_by) as folder:
        try:
            with shared.adapters.removed():
                model = shared.backbone.model
                model.save_pretrained(folder, state_dict=None if weights is None else {**model.state_dict(), **weights})
        except SafetensorError as error:
            # It is not an OSError, but contains the number of one.
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error
        shared.template.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(whole_card(shared), encoding="utf-8")


def generation_config(shared: SharedModel) -> Any:
    """The base's generation configuration with the end of turn that the policy learned before any other end.

    One that transformers would refuse to write (a temperature without sampling) is replaced by a new one.
    """
    template, given = shared.template, shared.backbone.model.generation_config
    fresh: Any = GenerationConfig
    found = copy.deepcopy(given) if given is not None else fresh()
    try:
        found.validate(strict=True)
    except ValueError:
        found = fresh(bos_token_id=given.bos_token_id, eos_token_id=given.eos_token_id)
    others = found.eos_token_id if isinstance(found.eos_token_id, list) else [found.eos_token_id]
    ends = [template.end_id, *(end for end in others if end is not None and end != template.end_id)]
    found.eos_token_id = ends if len(ends) > 1 else ends[0]
    found.pad_token_id = template.pad_id
    found._from_model_config = False
    return found


def portable_name(base: str) -> str:
    """A base's name for users of an adapter: a directory below the current one is named relative to it."""
    path, here = Path(base), Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) and path != here else base
