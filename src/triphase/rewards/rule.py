"""The kinds that are rules: `length`, `repetition`, `pattern`, `json`, `sentiment`."""

import importlib.util

from triphase.errors import SettingsError
from triphase.rewards.function import FunctionScorer
from triphase.rewards.types import ScorerContext

_FUNCTIONS = {"json": "rules:valid_json", "sentiment": "sentiment:sentiment"}
_PACKAGES = {"sentiment": "vaderSentiment"}
_EXTRA = "train"


def open_scorer(context: ScorerContext) -> FunctionScorer:
    """The rule in the settings.

    Raises:
        SettingsError: a package that it needs is not installed, or it cannot be opened.
    """
    kind = context.settings.chosen
    package = _PACKAGES.get(kind)
    if package is not None and importlib.util.find_spec(package) is None:
        raise SettingsError(
            f"{context.setting}.kind: {kind} needs the package {package}; "
            f"install it with: pip install 'triphase[{_EXTRA}]'"
        )
    scorer = FunctionScorer(context, f"triphase.rewards.{_FUNCTIONS.get(kind, f'rules:{kind}')}", kind)
    scorer.remedy = f"correct {context.setting}.options (docs/rewards.md has those of a rule)"
    return scorer
