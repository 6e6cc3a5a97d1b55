"""People as the judges of a comparison.

They rank its responses blind on the labeling page, from a store in the comparison's directory, which
`triphase label serve` serves; the rankings become duels.
"""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from triphase.errors import SettingsError
from triphase.labeling.quality.agreement import pairwise_agreement
from triphase.labeling.quality.labeler_quality import position_bias
from triphase.labeling.work import item_plan
from triphase.records.types import Prompt, RankedGroup, Response, Split
from triphase.reports.comparison import Judgment, Labelers
from triphase.reports.duels import Duel
from triphase.reports.intervals import Interval
from triphase.runs.comparison_responses import Spoken
from triphase.runs.sides import ComparedPolicy
from triphase.settings.schema import LabelingSettings
from triphase.store import Store, open_store
from triphase.store.database import FILE_NAME

SPLITS: tuple[Split, ...] = ("train", "heldout")
Said = tuple[str, bool]
"""A text, and whether it is finished: what distinguishes responses in a store."""


def judged_by_people(
    spoken: Sequence[Spoken], sides: Sequence[ComparedPolicy], directory: Path, *, seed: int
) -> Judgment:
    """Add the first response of each side to each prompt for ranking, and return the current duels.

    Pairs of the same text are ties, and are not shown.

    Raises:
        SettingsError: there are more sides than a page can show.
    """
    if len(sides) > item_plan.MOST_RESPONSES:
        raise SettingsError(f"--by people: {len(sides)} policies; a page shows at most {item_plan.MOST_RESPONSES}")
    first = [each for each in spoken if each.key[2] == 0]
    with open_store(directory / FILE_NAME) as store:
        _put(store, first, seed=seed)
        groups = {group.prompt.id: group for split in SPLITS for group in store.ranked_groups(split)}
        return _judgment(first, sides, groups, _labelers(store, seed=seed), store, seed=seed)


def _put(store: Store, first: Sequence[Spoken], *, seed: int) -> None:
    prompts = {each.prompt.id: _asked(each.prompt) for each in first}
    store.add_prompts(prompts.values())
    store.add_responses(
        Response(_id(each), each.prompt.id, str(each.row["response"]), each.side.name, bool(each.row["finished"]))
        for each in first
    )
    item_plan.make_items(store, LabelingSettings(), seed=seed, now=time.time())


def _asked(prompt: Prompt) -> Prompt:
    """The prompt as shown to people: columns for scorers stay out of the store."""
    return Prompt(prompt.id, prompt.messages, prompt.kind, prompt.split)


def _id(spoken: Spoken) -> str:
    return f"{spoken.prompt.id}/{spoken.side.digest[:16]}"


def _judgment(
    first: Sequence[Spoken],
    sides: Sequence[ComparedPolicy],
    groups: dict[str, RankedGroup],
    labelers: Labelers,
    store: Store,
    *,
    seed: int,
) -> Judgment:
    said = {(each.side.digest, each.prompt.id): each for each in first}
    outcomes = {prompt: _outcomes(group) for prompt, group in groups.items()}
    duels, same, unjudged = list[Duel](), 0, 0
    for one, other in itertools.combinations(sides, 2):
        for prompt in dict.fromkeys(each.prompt.id for each in first):
            ours, theirs = said[one.digest, prompt].said[1:], said[other.digest, prompt].said[1:]
            same += ours[0] == theirs[0]
            outcome = 0.5 if ours[0] == theirs[0] else outcomes.get(prompt, {}).get((ours, theirs))
            if outcome is None:
                unjudged += 1
            else:
                duels.append(Duel(prompt, one.name, other.name, outcome, len(ours[0]) - len(theirs[0])))
    bias = position_bias(store.rankings())
    return Judgment(
        duels=duels,
        unjudged=unjudged,
        same=same,
        first=None if bias is None else bias.value,
        consistent=None,
        labelers=labelers,
    )


def _outcomes(group: RankedGroup) -> dict[tuple[Said, Said], float]:
    """Of each pair of responses that people ordered or tied, the share of votes for the first, in both directions."""
    said = list(zip(group.responses, group.finished, strict=True))
    found: dict[tuple[Said, Said], float] = {}
    for pair in group.pairs:
        found[said[pair.first], said[pair.second]] = pair.target
        found[said[pair.second], said[pair.first]] = 1 - pair.target
    return found


def _labelers(store: Store, *, seed: int) -> Labelers:
    rankings = store.rankings()
    agreement = pairwise_agreement(rankings, seed=seed).value
    return Labelers(
        names=len({ranking.labeler for ranking in rankings}),
        rankings=len(rankings),
        agreement=None
        if agreement is None
        else Interval(agreement.value, agreement.low, agreement.high, agreement.prompts),
    )
