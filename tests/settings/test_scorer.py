"""The scorer in the settings: the path of a function's file, and the old name of the section."""

from pathlib import Path

import pytest
from tests.settings_text import settings_from_text

from triphase.errors import SettingsError
from triphase.settings.loading import load_settings

BASE = "name: a\nmodel: {name: m}\ndata: {}\n"


def test_a_functions_file_is_taken_from_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(
        f"{BASE}ppo: {{scorer: {{function: 'sub/my_rewards.py:score'}}}}\n"
        "variants: {b: {scorer: {function: ./other.py:f}}, c: {scorer: {function: package.module:f}}}\n"
    )
    settings = load_settings(path)
    assert settings.ppo.scorer.function == f"{tmp_path}/sub/my_rewards.py:score"
    assert settings.ppo_of("b").scorer.function == f"{tmp_path}/other.py:f"
    assert settings.ppo_of("c").scorer.function == "package.module:f"


def test_reward_is_another_name_of_scorer(caplog: pytest.LogCaptureFixture) -> None:
    text = f"{BASE}ppo: {{reward: {{function: m:f}}}}\nvariants: {{b: {{reward: {{kind: model}}}}}}\n"
    settings = settings_from_text(text)
    assert settings.ppo.scorer.function == "m:f" and settings.ppo_of("b").scorer.chosen == "model"
    assert [record.getMessage() for record in caplog.records] == [
        "ppo.reward is now ppo.scorer: both set the scorer",
        "variants.b.reward is now variants.b.scorer: both set the scorer",
    ]
    changed = settings_from_text(f"{BASE}ppo: {{scorer: {{function: m:f}}}}\n", {"ppo.reward.batch_size": "3"})
    assert (changed.ppo.scorer.function, changed.ppo.scorer.batch_size) == ("m:f", 3)
    with pytest.raises(SettingsError, match=r"reward is the old name of scorer; give scorer alone"):
        settings_from_text(f"{BASE}ppo: {{reward: {{function: m:f}}, scorer: {{function: m:g}}}}\n")
