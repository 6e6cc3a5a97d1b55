"""What to lower if a phase does not fit: settings that exist, with values that are allowed."""

from typing import Any

import pytest
import yaml
from tests.planning.test_footprint import OPTIMIZER, RESPONSE, model, planner, run_settings

from triphase.footprints.moments import CACHE
from triphase.phases.ppo_footprint import ppo_footprint
from triphase.planning.every_phase import footprints_of
from triphase.planning.remedies import remedies_of
from triphase.settings.schema import RunSettings

PPO = {"max_response_tokens": RESPONSE, "optimizer": OPTIMIZER}
FULL = {"method": "full", "optimizer": OPTIMIZER}


def applied(settings: RunSettings, remedy: str) -> RunSettings:
    """The settings with one remedy, as a user would give it."""
    key, _, value = remedy.partition(": ")
    values = place = settings.model_dump(mode="json", by_alias=True)
    *sections, last = key.split(".")
    for section in sections:
        place = place[section]
    place[last] = yaml.safe_load(value)
    return RunSettings.model_validate(values)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ppo": {**PPO, "batch_size": 16, "minibatch_size": 16}},
        {"ppo": {**PPO, "batch_size": 32, "minibatch_size": 8}, "variants": {"v": {"batch_size": 8}}},
        {"sft": FULL, "adapters": {"layers": "all", "rank": 4}},
        {"variants": {"v": FULL}},
    ],
)
def test_each_is_a_setting_with_an_allowed_value(changes: dict[str, Any]) -> None:
    settings = run_settings(**changes)
    found = {
        each.phase: remedies_of(each, settings, adapted_layers=3) for each in footprints_of(planner(settings, model()))
    }
    for remedies in found.values():
        for text, _ in remedies:
            assert applied(settings, text) != settings, text
    if "v" in settings.variants:
        own = [text for text, _ in found["arms/v"] if text.startswith("variants.v.")]
        assert own and not any(text.startswith("ppo.") for text, _ in found["arms/v"])


@pytest.mark.parametrize(("minibatch_size", "is_named"), [(8, True), (16, False)])
def test_half_of_a_rollout_is_named_where_it_is_whole_minibatches(minibatch_size: int, is_named: bool) -> None:
    settings = run_settings(ppo={**PPO, "batch_size": 16, "minibatch_size": minibatch_size})
    found = ppo_footprint(planner(settings, model()), None)
    found.moments = [each for each in found.moments if each.parts.get(CACHE)]
    named = dict(remedies_of(found, settings, adapted_layers=3))
    assert ("ppo.batch_size: 8" in named) is is_named


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "small", "dtype": "float32", "quantization": "int8"}},
        {"sft": FULL, "data": {"demonstrations": [{"path": "d.jsonl"}]}},
        {"ppo": {**PPO, **FULL}},
    ],
)
def test_another_dtype_is_named_only_for_a_base_that_is_stored_in_it(changes: dict[str, Any]) -> None:
    plain = planner(run_settings(), model())
    for found in footprints_of(plain):
        assert "model.dtype: bfloat16" in dict(remedies_of(found, plain.settings, adapted_layers=3))
        other = dict(remedies_of(found, run_settings(**changes), adapted_layers=3))
        assert "model.dtype: bfloat16" not in other
