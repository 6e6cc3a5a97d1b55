"""The kinds that are rules: `length`, `repetition`, `pattern`, `json`."""

from triphase.rewards.function import FunctionScorer
from triphase.rewards.types import ScorerContext

_FUNCTIONS = {"json": "valid_json"}


def open_scorer(context: ScorerContext) -> FunctionScorer:
    """The rule that the settings choose."""
    kind = context.settings.chosen
    scorer = FunctionScorer(context, f"triphase.rewards.rules:{_FUNCTIONS.get(kind, kind)}", kind)
    scorer.remedy = f"correct {context.setting}.options (docs/rewards.md has those of a rule)"
    return scorer
