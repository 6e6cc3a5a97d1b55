"""The remedy of an alarm must be possible: for a variant, by the variant's settings and without its checkpoints."""

import re
from pathlib import Path

import pytest
from tests.runs.small_run import settings, write_data

from triphase.monitoring.alarm_rules import RULES, Limits
from triphase.monitoring.alarms import find_alarms
from triphase.monitoring.progress import SilentProgress
from triphase.runs.directory import RunDirectory
from triphase.runs.phase_setup import _guard
from triphase.runs.session import Run
from triphase.settings.ppo import PPOSettings
from triphase.training.stopping import StopRequest


def hacked() -> list[dict[str, float]]:
    gold = [0.1 * min(step, 10) - 0.6 * (step > 15) for step in range(1, 26)]
    return [
        {"step": step, "ppo/gold_score": value, "ppo/proxy_score": 0.1 * step} for step, value in enumerate(gold, 1)
    ]


def remedies(variant: str | None) -> list[str]:
    far = [{"step": step, "ppo/reference_kl": 4.0 * step} for step in range(1, 12)]
    found = [find_alarms(rows, Limits(variant=variant)) for rows in (hacked(), far)]
    return [alarm.remedy for (alarm,) in found]


def test_of_the_main_run_its_checkpoints_are_named() -> None:
    first, second = remedies(None)
    assert re.search(r"--checkpoint \d+; it is kept\), raise ppo\.kl_coefficient", first)
    assert second.endswith("or set ppo.kl_budget and take an earlier checkpoint.")


def test_of_a_variant_its_settings_are_named_and_no_checkpoint() -> None:
    first, second = remedies("no-kl")
    assert re.match(
        r"end it at about iteration \d+ \(variants\.no-kl\.iterations\), raise variants\.no-kl\.kl_coefficient,", first
    )
    assert second == "raise variants.no-kl.kl_coefficient, or set variants.no-kl.kl_budget."
    for remedy in (first, second):
        assert "checkpoint" not in remedy and not re.search(r"(?<![\w.-])ppo\.", remedy)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.name))
def test_remedies_name_settings_that_there_are(rule: object) -> None:
    for name in re.findall(r"ppo\.(\w+)", str(getattr(rule, "remedy", ""))):
        assert name in PPOSettings.model_fields


def test_a_run_judges_its_variants_by_their_names(tmp_path: Path) -> None:
    write_data(tmp_path)
    chosen = settings(tmp_path, variants={"free": {"kl_coefficient": 0.0}})
    run = Run(chosen, RunDirectory(chosen), SilentProgress(), StopRequest())
    for variant in (None, "free"):
        assert _guard(run, variant, chosen.ppo_of(variant))._limits.variant == variant
