"""The `final/` directory of a reward model, or of several.

    adapter_model.safetensors, score_head.safetensors, calibration.json, README.md     the reward model, or member 1
    member-2/ …  adapter and score head of each further member      ensemble.json      how they are combined
    witness/     adapter and score head of the witness          length.json            the correction for length

peft loads each adapter as `AutoModelForSequenceClassification` with one label, including its score head.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.models.members import WITNESS, Combination, Ensemble, LengthResidual, RewardMember, member_adapter
from triphase.models.roles import REWARD, SharedModel
from triphase.records.types import Message
from triphase.tokens.rendering import render
from triphase.training.adapter_files import ADAPTER_FILE, adapter_files, tensor_bytes, tensors_in
from triphase.training.artifacts import read, write
from triphase.training.cards import end_at_turn
from triphase.training.finals import portable_name
from triphase.training.reward_card import reward_card

ENSEMBLE_FILE, LENGTH_FILE = "ensemble.json", "length.json"
_HEAD_FILE = "score_head.safetensors"
_PROBE = "triphase probe"
_SCORE_KEY = "base_model.model.score.weight"


def save_reward_model(
    shared: SharedModel, directory: Path, calibration: Mapping[str, Any], made_by: str | None = None
) -> None:
    """Write the reward adapters with their score heads and calibration."""
    base, (tokenizer, cuts) = portable_name(shared.base_name), scoring_tokenizer(shared)
    first, *others = shared.reward_members
    files = _member_files(shared, first, base, tokenizer)
    for number, member in enumerate(others, start=2):
        files |= {f"member-{number}/{name}": data for name, data in _member_files(shared, member, base).items()}
    if shared.ensemble is not None:
        how = {"members": len(shared.reward_members), **shared.ensemble.combination.as_json()}
        files[ENSEMBLE_FILE] = json.dumps(how, indent=1, sort_keys=True).encode()
    if shared.residual is not None:
        files[LENGTH_FILE] = json.dumps(asdict(shared.residual), indent=1, sort_keys=True).encode()
    if shared.witness is not None:
        files |= {f"{WITNESS}/{name}": data for name, data in _member_files(shared, shared.witness, base).items()}
    told = {
        **calibration,
        "applied": True,
        "note": "the score head already has this calibration; do not apply it again",
    }
    files["calibration.json"] = json.dumps(told, indent=1, sort_keys=True).encode()
    files["README.md"] = reward_card(shared, base, cuts=cuts).encode()
    write(directory, files, made_by)


def load_reward_model(shared: SharedModel, directory: Path) -> None:
    """Read what `save_reward_model` wrote.

    Raises:
        RunError: it is missing or damaged.
    """
    shared.ensemble = shared.residual = shared.witness = None
    _load_member(shared, RewardMember(REWARD, shared.score_head), directory, "")
    if (directory / ENSEMBLE_FILE).exists():
        shared.ensemble = _ensemble_in(shared, directory)
    if (directory / LENGTH_FILE).exists():
        shared.residual = _residual_in(directory)
    if (directory / WITNESS).is_dir():
        shared.witness = RewardMember(WITNESS, shared.fresh_score_head(0))
        _load_member(shared, shared.witness, directory, f"{WITNESS}/")


def what_plain_libraries_miss(directory: Path) -> str | None:
    """The part of a reward model's score that a plain classifier would leave out; None if there is none."""
    if (directory / ENSEMBLE_FILE).is_file():
        return "contains an ensemble of reward models, but a classifier is a single model"
    if (directory / LENGTH_FILE).is_file():
        return "corrects the score for length, but a classifier does not"
    return None


def scoring_tokenizer(shared: SharedModel) -> tuple[Any, bool]:
    """The tokenizer of a reward model, and whether its chat template ends at the end of turn, as training did."""
    template, tokenizer = shared.template, copy.deepcopy(shared.template.tokenizer)
    if not template.is_chat:
        return tokenizer, False
    asked, answer = [Message("user", _PROBE)], Message("assistant", _PROBE)
    whole = template.conversation([*asked, answer])
    end = str(tokenizer.convert_ids_to_tokens(template.end_id))
    end_at_turn(tokenizer, end, closes=end in template.render(whole, open_turn=False).rpartition(_PROBE)[2])
    written = render(tokenizer, whole, open_turn=False, date=template.date)
    ids = list(tokenizer(written, add_special_tokens=False).input_ids)
    if ids == [*template.prompt_ids(asked), *template.response_ids(_PROBE)]:
        return tokenizer, True
    return shared.template.tokenizer, False


def _member_files(shared: SharedModel, member: RewardMember, base: str, tokenizer: Any = None) -> dict[str, bytes]:
    state = shared.adapters.state(member.adapter)
    state[_SCORE_KEY] = member.head.linear.weight.detach().cpu().clone()
    files = adapter_files(shared, state, base, tokenizer, task="SEQ_CLS", extra_modules=["score"])
    files[_HEAD_FILE] = tensor_bytes(dict(member.head.linear.state_dict()))
    return files


def _load_member(shared: SharedModel, member: RewardMember, directory: Path, folder: str) -> None:
    state = tensors_in(directory, folder + ADAPTER_FILE)
    state.pop(_SCORE_KEY)
    shared.adapters.load(member.adapter, state)
    member.head.linear.load_state_dict(tensors_in(directory, folder + _HEAD_FILE))


def _residual_in(directory: Path) -> LengthResidual:
    try:
        return LengthResidual(**json.loads(read(directory, LENGTH_FILE)))
    except (ValueError, TypeError) as error:
        raise RunError(f"{directory / LENGTH_FILE} cannot be read ({error}); train the reward model again") from None


def _ensemble_in(shared: SharedModel, directory: Path) -> Ensemble:
    try:
        told = json.loads(read(directory, ENSEMBLE_FILE))
        how, count = Combination.from_json(told), int(told["members"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{directory / ENSEMBLE_FILE} cannot be read ({error}); train the reward model again") from None
    members = [RewardMember(REWARD, shared.score_head)]
    for number in range(1, count):
        member = RewardMember(member_adapter(REWARD, number), shared.fresh_score_head(0))
        _load_member(shared, member, directory, f"member-{number + 1}/")
        members.append(member)
    return Ensemble(tuple(members), how)
