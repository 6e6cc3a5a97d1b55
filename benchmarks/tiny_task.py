"""Settings of the tiny task, for benchmarks that measure one phase repeatedly."""

from pathlib import Path
from typing import Any

import yaml

import triphase.demo
from triphase.demo.tiny import tiny_directory
from triphase.settings.schema import RunSettings


def tiny_settings(output: str, *, seed: int = 0, **ppo: Any) -> RunSettings:
    """What `tiny.yaml` says, without its variant, and ``ppo`` over it.

    What it does not say is the plain default of each section: unlike `triphase demo --tiny`, heads have the learning
    rate of the rest and SFT warms up over no steps.
    """
    text = Path(triphase.demo.__file__).with_name("tiny.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text) | {"seed": seed, "output": output, "variants": {}}
    for sources in (values["data"]["demonstrations"], values["data"]["prompts"]):
        sources[0]["path"] = str(tiny_directory() / sources[0]["path"])
    values["ppo"] |= ppo
    return RunSettings.model_validate(values)
