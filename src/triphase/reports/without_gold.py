"""The findings if no gold score is known: what changed, how far its measure can be trusted, what was lost."""

from collections.abc import Sequence

from triphase.monitoring.wording import number
from triphase.reports.contents import RunContents
from triphase.reports.diversity import Diversity
from triphase.reports.findings import Findings, PolicyFindings
from triphase.reports.interval_wording import capital, is_above, is_below, moved, percent_interval, signed
from triphase.reports.people_wins import PeopleWin
from triphase.reports.policy_verdicts import Tone
from triphase.reports.scored_by import score_of, uses_reward_model
from triphase.reports.starting_point import start_of

_ASK = "Have people rank responses of both policies."


def without_gold(
    run: RunContents, found: Findings, ppo: PolicyFindings, people: Sequence[PeopleWin] = ()
) -> tuple[Tone, str, tuple[str, ...]]:
    """Tone, headline and sentences of the main PPO run. Never good: its score is what it was trained on."""
    score, start = score_of(run.settings), start_of(run.settings).noun
    chance = found.reward.chance if uses_reward_model(run.settings) else None
    tone: Tone = "open"
    said = [each.sentence for each in people]
    told = next((each.sentence for each in people if each.tone != "open"), said[0]).removesuffix(".") if said else None
    if chance is not None and not chance.is_better and chance.outcome != "too few":
        doubt = f"{chance.headline[0].lower()}{chance.headline[1:]}"
        tone, headline = "bad", f"No basis for a verdict: {doubt}" if told is None else f"{told}; but {doubt}"
    elif ppo.diversity is not None and ppo.diversity.is_collapsed:
        tone, headline = "bad", f"PPO's responses have become alike: {alike_text(ppo.diversity)}"
    elif is_above(ppo.proxy_gain, 0):
        headline = f"{capital(score)} rose; whether people agree is unknown"
    elif is_below(ppo.proxy_gain, 0):
        tone, headline = "bad", f"{capital(score)} fell: PPO did not improve what it was trained to raise"
    else:
        headline = f"No gain shown: {score} may not have changed"
    if told is not None and tone == "open":
        headline = told
    gained = f"{capital(score)} changed by {signed(ppo.proxy_gain)}"
    if ppo.gain_in_deviations is not None:
        gained += f", {moved(ppo.gain_in_deviations)} standard deviations of its scores at the start,"
    uncertain = "people's judgment is shown above" if people else f"that says little about people's preferences. {_ASK}"
    sentences = [*said, f"{gained} against {start}, but PPO was trained to raise it: {uncertain.rstrip('.')}."]
    if chance is not None:
        sentences.append(
            f"The reward model is correct on {percent_interval(chance.accuracy)} of the held-out "
            f"judgments; preferring the longer response would be correct on {percent_interval(chance.longer_wins)}."
        )
    return tone, headline, tuple(sentences)


def alike_text(found: Diversity) -> str:
    """66 % begin with “friend”; or how few bigrams are left."""
    if found.has_one_opening:
        return found.opening_text()
    return f"distinct-2 is {number(found.distinct)}, of {number(found.distinct_before)} at the start"
