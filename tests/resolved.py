"""All settings of a run as a file, which `load_settings` reads back to the same settings."""

import yaml

from triphase.settings.schema import RunSettings


def resolved_yaml(settings: RunSettings) -> str:
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
