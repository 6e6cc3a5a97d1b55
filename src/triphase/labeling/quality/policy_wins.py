"""The preferred policies in a campaign that compares policies: the win rate of each two, with its interval."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from triphase.labeling.quality.agreement import Estimate, share_by_prompt
from triphase.records.types import Response
from triphase.store import Store


@dataclass(frozen=True, slots=True)
class Wins:
    """How often the responses of ``first`` are preferred to those of ``second``; ``same`` pairs have equal texts."""

    first: str
    second: str
    rate: Estimate | None
    same: int


def policy_wins(store: Store, campaign: str, models: Sequence[str], split: str, kind: str) -> list[Wins]:
    """The win rate of each two policies: a tie counts half, and so does a pair of equal texts, which is not shown.

    ``split`` and ``kind`` restrict the prompts as for items; empty is all. Intervals resample whole prompts. Prompts
    without responses of all policies are left out, as for items.
    """
    first: dict[str, dict[str, Response]] = defaultdict(dict)
    asked = (prompt for prompt in store.prompts() if split in ("", prompt.split) and kind in ("", prompt.kind))
    prompts = {prompt.id for prompt in asked}
    for response in store.responses():
        if response.model in models and response.prompt_id in prompts:
            first[response.prompt_id].setdefault(response.model, response)
    complete = {prompt: by_model for prompt, by_model in first.items() if len(by_model) == len(models)}
    places: dict[str, list[dict[str, int]]] = defaultdict(list)
    for answer in store.answers():
        if answer.campaign == campaign and answer.purpose == "label" and answer.ranking.prompt_id in complete:
            texts = {one.id: one.text for one in complete[answer.ranking.prompt_id].values()}
            given = answer.ranking.places
            places[answer.ranking.prompt_id].append({texts[id_]: place for id_, place in given.items() if id_ in texts})
    return [_wins(one, other, complete, places) for one, other in combinations(models, 2)]


def _wins(
    one: str, other: str, complete: dict[str, dict[str, Response]], places: dict[str, list[dict[str, int]]]
) -> Wins:
    outcomes, same = list[tuple[str, float]](), 0
    for prompt, by_model in complete.items():
        ours, theirs = by_model[one].text, by_model[other].text
        if ours == theirs:
            same += 1
            continue
        for given in places[prompt]:
            if ours in given and theirs in given:
                outcomes.append((prompt, 0.5 + 0.5 * ((given[ours] < given[theirs]) - (given[ours] > given[theirs]))))
    return Wins(one, other, _with_ties(share_by_prompt(outcomes), same / max(1, len(complete))), same)


def _with_ties(asked: Estimate | None, same: float) -> Estimate | None:
    """The rate over all prompts, a share ``same`` of which has equal texts: known without labels, however many ranked.

    rate = same/2 + (1 - same) · (rate where the texts differ)
    """
    if asked is None:
        return None
    value, low, high = (same / 2 + (1 - same) * each for each in (asked.value, asked.low, asked.high))
    return replace(asked, value=value, low=low, high=high)
