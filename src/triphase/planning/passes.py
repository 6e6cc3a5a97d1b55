"""`microbatch_tokens: auto`: the largest passes that fit the plan, for each phase with this setting.

On a CPU larger passes than usual are no faster: the usual size is the maximum there.
"""

import copy
from collections.abc import Callable, Iterator

from triphase.batches.order import most_tokens
from triphase.footprints.cost import CostModel
from triphase.footprints.moments import Footprint
from triphase.phases.ppo_footprint import ppo_footprint
from triphase.phases.reward_footprint import reward_footprint
from triphase.phases.sft_footprint import sft_footprint
from triphase.planning.evaluation_footprint import evaluation_footprint
from triphase.planning.wording import size_text
from triphase.settings.phases import RewardSettings, SupervisedSettings
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import RunSettings

ROOM = 0.9
"""Share of the allowed memory; the rest is for the plan's error."""
LEAST, MOST = 128, 1 << 17


def asks(settings: RunSettings) -> bool:
    """Whether any phase leaves the size of its passes to the plan."""
    return any(_section(settings, name).microbatch_tokens == "auto" for name in _names(settings))


def sized(cost: CostModel, allowed: float, *, on_card: bool) -> tuple[RunSettings, list[str]]:
    """``cost``'s settings with a number in place of each `auto`, and a line about each."""
    settings, lines = cost.settings, []
    for name in _names(settings):
        # From the original settings: a variant that inherits the `auto` of ppo gets its own number.
        if _section(cost.settings, name).microbatch_tokens != "auto" or not _has_work(cost, name):
            continue
        tokens, peak = _largest(cost, name, ROOM * allowed, on_card=on_card)
        settings = with_tokens(settings, name, tokens)
        fits = "of" if peak <= ROOM * allowed else "more than the available"
        lines.append(
            f"{name}.microbatch_tokens: auto is {tokens} (planned {size_text(peak)}, {fits} {size_text(allowed)})"
        )
    return settings, lines


def with_tokens(settings: RunSettings, name: str, tokens: int) -> RunSettings:
    """The settings with passes of this many tokens in `sft`, `reward`, `ppo` or a variant `variants.NAME`."""
    changed = {"microbatch_tokens": tokens}
    if name.startswith("variants."):
        variant = name.removeprefix("variants.")
        return settings.model_copy(
            update={"variants": {**settings.variants, variant: {**settings.variants[variant], **changed}}}
        )
    return settings.model_copy(update={name: getattr(settings, name).model_copy(update=changed)})


def _largest(cost: CostModel, name: str, room: float, *, on_card: bool) -> tuple[int, float]:
    """The tokens of the largest passes that fit, and the peak with them; if none does, of the largest at that peak."""
    start = most_tokens(None, on_card=on_card)
    chosen, peak, shapes = start, *_planned(cost, name, start)
    while peak > room and chosen > LEAST:
        smaller, other = _planned(cost, name, chosen // 2)
        if smaller >= peak and other != shapes:  # the peak is no pass, but for example sampling
            break
        chosen, peak, shapes = chosen // 2, smaller, other
    while on_card and start <= chosen < MOST:
        larger, other = _planned(cost, name, 2 * chosen)
        if larger > room or other == shapes:  # all passes are whole minibatches already
            break
        chosen, peak, shapes = 2 * chosen, larger, other
    return chosen, peak


def _planned(cost: CostModel, name: str, tokens: int) -> tuple[float, list[object]]:
    """The peak of a phase in passes of this many tokens, and the shapes of its moments."""
    tried = copy.copy(cost)
    tried.settings = with_tokens(cost.settings, name, tokens)
    found = [footprint(tried) for footprint in _footprints(cost, name)]
    return max(each.peak.total for each in found), [moment.shape for each in found for moment in each.moments]


def _footprints(cost: CostModel, name: str) -> Iterator[Callable[[CostModel], Footprint]]:
    if name in ("sft", "reward"):
        yield sft_footprint if name == "sft" else reward_footprint
        return
    variant = None if name == "ppo" else name.removeprefix("variants.")
    yield lambda tried: ppo_footprint(tried, variant)
    if variant is None and cost.load.heldout_prompts.count:
        yield evaluation_footprint


def _has_work(cost: CostModel, name: str) -> bool:
    return bool({"sft": cost.load.demonstrations, "reward": cost.load.groups}.get(name, cost.load.prompts).count)


def _names(settings: RunSettings) -> list[str]:
    return ["sft", "reward", "ppo", *(f"variants.{variant}" for variant in settings.variants)]


def _section(settings: RunSettings, name: str) -> SupervisedSettings | RewardSettings | PPOSettings:
    if name.startswith("variants.") or name == "ppo":
        return settings.ppo_of(None if name == "ppo" else name.removeprefix("variants."))
    return settings.sft if name == "sft" else settings.reward
