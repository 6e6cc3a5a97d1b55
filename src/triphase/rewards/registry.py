"""The kinds of scorers. A new kind is a module with a function `open_scorer`, and one line here.

    def open_scorer(context: ScorerContext) -> Scorer

Modules are named, not imported: the command line reads this table without torch.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from triphase.errors import SettingsError
from triphase.records.types import Prompt
from triphase.rewards.types import Scorer, ScorerContext
from triphase.settings.scorer import ScorerSettings


@dataclass(frozen=True, slots=True)
class ScorerKind:
    """Where a kind of scorer is defined, and whether it needs the run's reward model."""

    module: str
    needs_reward_model: bool = False


KINDS = {
    "model": ScorerKind("triphase.rewards.model", needs_reward_model=True),
    "remote": ScorerKind("triphase.rewards.remote"),
    "function": ScorerKind("triphase.rewards.function"),
    "object": ScorerKind("triphase.rewards.python_object"),
    "classifier": ScorerKind("triphase.rewards.classifier"),
    "length": ScorerKind("triphase.rewards.rule"),
    "repetition": ScorerKind("triphase.rewards.rule"),
    "pattern": ScorerKind("triphase.rewards.rule"),
    "json": ScorerKind("triphase.rewards.rule"),
    "sentiment": ScorerKind("triphase.rewards.rule"),
    "judge": ScorerKind("triphase.rewards.judge"),
    "sum": ScorerKind("triphase.rewards.weighted"),
}


def kind_of(settings: ScorerSettings, setting: str = "ppo.scorer") -> ScorerKind:
    """The kind in the settings.

    Raises:
        SettingsError: there is no such kind.
    """
    name = settings.chosen
    if name not in KINDS:
        near = get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
        raise SettingsError(f"{setting}.kind: {name!r} is not a kind of scorer; {hint}")
    return KINDS[name]


def needs_reward_model(settings: ScorerSettings, setting: str = "ppo.scorer") -> bool:
    """Whether the scorer, or a part of it, needs the run's reward model; ``setting`` is its name, for messages."""
    return kind_of(settings, setting).needs_reward_model or any(
        [needs_reward_model(part.settings, f"{setting}.of.{part.name}") for part in settings.parts]
    )


def reward_models_in(settings: ScorerSettings) -> int:
    """How often the run's reward model scores in one call: once, or once for each part of a sum that it is."""
    return kind_of(settings).needs_reward_model + sum(reward_models_in(part.settings) for part in settings.parts)


@contextmanager
def opened(context: ScorerContext) -> Iterator[Scorer]:
    """The scorer in the settings, closed afterwards.

    Raises:
        TriphaseError: it cannot be opened.
    """
    open_scorer: Callable[[ScorerContext], Scorer] = importlib.import_module(
        kind_of(context.settings).module
    ).open_scorer
    with closing(open_scorer(context)) as scorer:
        yield scorer


def examine(
    settings: ScorerSettings,
    prompts: Sequence[Prompt] = (),
    scorer_object: Callable[..., Any] | None = None,
    place_of: Callable[[str, Path | None], str] = lambda name, adapter: name,
    *,
    setting: str = "ppo.scorer",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> list[str]:
    """Check a scorer before the first step, as far as that needs no model; ``prompts`` are some of the run's,
    ``scorer_object``, ``place_of`` and ``device`` are those of `ScorerContext`, ``setting`` its name, for messages.

    Returns:
        What the user should know of it, a line each.

    Raises:
        TriphaseError: it cannot score.
    """
    kind_of(settings, setting)
    notes: list[str] = []
    looked_at = [(settings, setting, False)]
    if settings.parts:
        looked_at = [(part.settings, f"{setting}.of.{part.name}", True) for part in settings.parts]
    for each, place, is_part in looked_at:
        if not needs_reward_model(each, place):
            context = ScorerContext(
                each,
                device=device,
                prompts=prompts,
                setting=place,
                is_part=is_part,
                scorer_object=scorer_object,
                place_of=place_of,
            )
            with opened(context) as scorer:
                scorer.examine()
                notes += scorer.notes()
    return notes
