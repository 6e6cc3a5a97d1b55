"""What a run would refuse later is refused before its first step; `check` makes the same checks.

Records are read, rendered and encoded by `run_data`; this file has the requirements of phases on them together, and
further checks: that the model opens, that servers are configured, that a gold score has its package.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from triphase.datacheck.agenda import needs_reward_model
from triphase.datacheck.examiner import response_limits
from triphase.datacheck.model_names import place_of
from triphase.datacheck.run_data import RunData
from triphase.datacheck.scorer_columns import first_prompts
from triphase.datacheck.served_base import require_startable
from triphase.demo.embedded import gold_of
from triphase.errors import DataError, SettingsError
from triphase.monitoring.trackers import require_trackers
from triphase.records.types import Split
from triphase.rewards import registry
from triphase.rollouts.client import JsonClient
from triphase.rollouts.vllm_server import VLLMServer
from triphase.settings.agenda import has_demonstrations_alone
from triphase.settings.schema import RunSettings

_SPLITS: tuple[Split, ...] = ("train", "heldout")
_SHARE = "set the `split` of some records, or change data.heldout_share"


@dataclass(frozen=True, slots=True)
class Holdings:
    """The numbers of available records.

    Attributes:
        demonstrations: those to train on, by the path of each source.
        prompts, comparisons: by split; prompts are those of the preferences if no others are named.
        rankings: rankings of training prompts in the store of the run.
        ranked: training prompts that have, or get, comparisons; None if they were not counted.
    """

    demonstrations: tuple[tuple[str, int], ...]
    prompts: Counter[str]
    comparisons: Counter[str]
    rankings: int = 0
    ranked: int | None = None


def require_settings(
    settings: RunSettings, steps: tuple[str, ...], scorer_object: Callable[..., Any] | None = None
) -> list[str]:
    """Checks without a record or a weight; ``scorer_object`` is a Python object that scores.

    Returns:
        What the user should know of the scorers, a line each.

    Raises:
        SettingsError: no prompt can leave room for its response, or the gold score's package is not installed.
        ServerError: a server does not respond, its token is not set, or its client is not installed.
    """
    require_trackers(settings.trackers)
    for split in () if has_demonstrations_alone(settings) else _SPLITS:
        for name, tokens in response_limits(settings, split):
            if tokens >= settings.model.max_length:
                raise SettingsError(
                    f"{name}: {tokens} tokens for the response leave none for a prompt in model.max_length = "
                    f"{settings.model.max_length}; lower it, or raise model.max_length"
                )
    asks = "ppo" in steps or "evaluation" in steps
    notes = _examine_services(settings, steps, scorer_object) if asks else []
    if settings.evaluation.gold is not None:
        try:
            gold_of(settings.evaluation.gold)("word", "word", True)
        except ImportError as error:
            raise SettingsError(
                f"evaluation.gold: {settings.evaluation.gold} needs the package {error.name}; run: pip install "
                "'triphase[train]'"
            ) from None
    return notes


def require_demonstrations(settings: RunSettings, data: RunData) -> None:
    """Check that the sources together have a demonstration to train on.

    Raises:
        DataError: they have none.
    """
    for problem in _sft(settings, Holdings(_demonstrated(settings, data), Counter(), Counter())):
        raise DataError(problem)


def holdings_of(settings: RunSettings, data: RunData, steps: tuple[str, ...], *, rankings: int = 0) -> Holdings:
    """The available records for these steps."""
    compared = data.comparisons() if "reward" in steps else []
    ranked = [*([] if settings.labeling.source == "none" else data.prompts()), *(item.prompt for item in compared)]
    return Holdings(
        _demonstrated(settings, data) if "sft" in steps or _is_mixing(settings, steps) else (),
        Counter(prompt.split for prompt in data.prompts()),
        Counter(item.prompt.split for item in compared),
        rankings,
        len({prompt.id for prompt in ranked if prompt.split == "train"}),
    )


def demands(settings: RunSettings, steps: tuple[str, ...], holdings: Holdings) -> Iterator[str]:
    """What the data lacks for these steps, one line each, in the order of the steps."""
    for step in steps:
        yield from _DEMANDS[step](settings, holdings)


def _demonstrated(settings: RunSettings, data: RunData) -> tuple[tuple[str, int], ...]:
    sources = zip(settings.data.demonstrations, data.demonstrations(), strict=True)
    return tuple(
        (source.path, sum(record.prompt.split == "train" for record in records)) for source, records in sources
    )


def _sft(settings: RunSettings, holdings: Holdings) -> Iterator[str]:
    if not holdings.demonstrations:
        yield "data.demonstrations is empty; give at least one file of prompt+completion records"
    for path, trained in holdings.demonstrations:
        if not trained:
            yield f"{path}: has no demonstration to train on: all its prompts are held out; {_SHARE}"


def _is_mixing(settings: RunSettings, steps: tuple[str, ...]) -> bool:
    """Whether PPO is among the steps and has a loss on demonstrations."""
    return "ppo" in steps and settings.mixes_demonstrations


def _prompts(settings: RunSettings, holdings: Holdings) -> Iterator[str]:
    if not holdings.prompts.total():
        yield "there are no prompts: data.prompts and data.preferences are empty; give a file in one of them"


def _sampling(settings: RunSettings, holdings: Holdings) -> Iterator[str]:
    if settings.labeling.source != "none":
        yield from _prompts(settings, holdings)


def _reward(settings: RunSettings, holdings: Holdings) -> Iterator[str]:
    if not needs_reward_model(settings) or holdings.rankings:
        return
    if (settings.labeling.source != "none" and holdings.prompts["train"]) or holdings.comparisons["train"]:
        if settings.reward.witness and holdings.ranked == 1:
            yield (
                "reward.witness: the comparisons are of one prompt, but the witness needs prompts of its own; add "
                "prompts, or leave it out"
            )
        return
    if settings.labeling.source != "none" or holdings.comparisons.total():
        held = holdings.prompts.total()
        yield f"all {held} prompts are held out, so the reward model has nothing to learn from; {_SHARE}"
    else:
        yield (
            "labeling.source is none and data.preferences is empty: the reward model has nothing to learn from; name "
            "preferences, let labeling.source be people, or give ppo.scorer a function or server (docs/rewards.md)"
        )


def _ppo(settings: RunSettings, holdings: Holdings) -> Iterator[str]:
    if _is_mixing(settings, ("ppo",)):
        yield from _sft(settings, holdings)
    yield from _prompts(settings, holdings)
    if holdings.prompts.total() and not holdings.prompts["train"]:
        yield f"all {holdings.prompts.total()} prompts are held out: PPO has none to train on; {_SHARE}"


def _evaluation(settings: RunSettings, holdings: Holdings) -> Iterator[str]:
    yield from _prompts(settings, holdings)
    if holdings.prompts.total() and not holdings.prompts["heldout"]:
        yield f"none of the {holdings.prompts.total()} prompts is held out: nothing can be evaluated; {_SHARE}"


_DEMANDS: dict[str, Callable[[RunSettings, Holdings], Iterator[str]]] = {
    "sft": _sft,
    "sampling": _sampling,
    "labelling": _prompts,
    "reward": _reward,
    "ppo": _ppo,
    "evaluation": _evaluation,
}


def _examine_services(
    settings: RunSettings, steps: tuple[str, ...], scorer_object: Callable[..., Any] | None
) -> list[str]:
    seen, notes = [], list[str]()
    for variant in (None, *settings.variants):
        scorer = settings.ppo_of(variant).scorer
        if scorer not in seen:
            prompts = first_prompts(settings) if scorer.takes_columns else ()
            named = "ppo.scorer" if variant is None else f"variants.{variant}.scorer"
            notes += registry.examine(
                scorer, prompts, scorer_object, place_of, setting=named, device=settings.model.device
            )
        seen.append(scorer)
        _require_start_of_critic(settings, variant)
    asked = [step for step in ("sampling", "evaluation") if getattr(settings.rollouts, step)]
    if not settings.rollouts.tries_both:  # else PPO samples here if servers cannot
        asked.append("ppo")
    if settings.rollouts.servers and asked:
        require_startable(settings)
    for address in settings.rollouts.addresses:
        with closing(JsonClient(address, settings.rollouts, setting="rollouts.addresses")) as client:
            if any(step in steps for step in asked):
                VLLMServer(client).require_up()
    return notes


def _require_start_of_critic(settings: RunSettings, variant: str | None) -> None:
    """Refuse a critic that starts from a reward model which a scorer of a custom kind does not read."""
    ppo, section = settings.ppo_of(variant), "ppo" if variant is None else f"variants.{variant}"
    if ppo.critic_start == "reward" and not registry.needs_reward_model(ppo.scorer):
        raise SettingsError(
            f"{section}.critic_start: reward needs a reward model, and a scorer of kind {ppo.scorer.chosen} scores in "
            f"its place; set {section}.critic_start: policy"
        )
