"""One sentence for each policy, in words that follow from its numbers, with or without a known gold score."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from triphase.monitoring.alarms import Alarm
from triphase.monitoring.wording import number, percent
from triphase.reports.contents import RunContents
from triphase.reports.diversity import Diversity
from triphase.reports.findings import Findings, PolicyFindings
from triphase.reports.gold_course import Course
from triphase.reports.interval_wording import is_above, is_below, moved, percent_interval, signed
from triphase.reports.scored_by import score_of, uses_reward_model
from triphase.reports.starting_point import start_of
from triphase.settings.phase_names import variant_of

Tone = Literal["good", "bad", "open"]
_HACKED = ("proxy-without-gold", "proxy-without-witness")
_MOVED_LENGTH = 1.5


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """The verdict on one policy; ``hacked`` if its score rose while the preference that it represents fell."""

    policy: str
    tone: Tone
    hacked: bool
    sentence: str


def policy_verdicts(run: RunContents, found: Findings, *, judged: bool = False) -> list[PolicyVerdict]:
    """The verdict on each PPO run, evaluated or not: the main one, then the variants by name.

    ``judged``: people have ranked responses of the run, so that their preference is not unknown.
    """
    names = [name for name in found.policies if name != "sft"]
    names += [name for name in found.alarms if name not in names]
    return [_verdict(run, found, name, judged=judged) for name in sorted(names, key=lambda name: (name != "ppo", name))]


def is_hacked(found: Findings, name: str) -> bool:
    """Whether a run's proxy score rose while gold (or the witness) fell: in training to the end, or on held-out
    prompts.

    In training, an alarm says so; without one the course of gold may, since alarms wait for a second look.
    """
    course = found.courses.get(name)
    fell = course is not None and course.has_parted
    return fell or bool(_lasting(found, name)) or has_parted(found.policies.get(name))


def has_parted(policy: PolicyFindings | None) -> bool:
    """Whether on held-out prompts gold significantly fell and the proxy score significantly rose."""
    if policy is None or policy.gold_gain is None or policy.proxy_gain is None:
        return False
    fell = policy.gold_gain.high is not None and policy.gold_gain.high < 0
    return fell and policy.proxy_gain.low is not None and policy.proxy_gain.low > 0


def _lasting(found: Findings, name: str) -> list[Alarm]:
    """Its alarms about hacking that hold at the end; a witness stands in for gold, and says nothing where gold does."""
    told = _HACKED[:1] if name in found.courses else _HACKED
    return [alarm for alarm in found.alarms.get(name, []) if alarm.name in told and alarm.lasting]


def _verdict(run: RunContents, found: Findings, name: str, *, judged: bool) -> PolicyVerdict:
    policy, course = found.policies.get(name), found.courses.get(name)
    hacked = is_hacked(found, name)
    diversity = policy.diversity if policy else None
    start = start_of(run.settings)
    head = [*_hacking(found, name, course)] if hacked else [*_judged(run, found, policy, course, judged=judged)]
    parts = [*head, *_drift(policy), *_alike(diversity, start.name), *_reward_model(run, found, name, policy)]
    tone: Tone = "open"
    wins = policy.gold_win_rate if policy else None
    if hacked or (diversity and diversity.is_collapsed) or (course and course.fallen) or is_below(wins, 0.5):
        tone = "bad"
    elif is_above(wins, 0.5) and not _is_doubted(run, found, name):
        tone = "good"
    return PolicyVerdict(name, tone, hacked, "; ".join(parts) + ".")


def _hacking(found: Findings, name: str, course: Course | None) -> Iterator[str]:
    """Where proxy and gold diverged: proxy +0.9, gold −0.7 since iteration 19."""
    policy = found.policies.get(name)
    if course is not None and course.has_parted:
        gold = course.end_gold - course.best_gold
        yield f"hacked: proxy {moved(course.proxy_moved)}, gold {moved(gold)} since iteration {course.best}"
    elif has_parted(policy) and policy is not None and policy.proxy_gain and policy.gold_gain:
        proxy, gold = policy.proxy_gain.value, policy.gold_gain.value
        yield f"hacked: proxy {moved(proxy)}, gold {moved(gold)} on held-out prompts"
    else:
        alarm = _lasting(found, name)[0]
        yield f"hacked: since iteration {alarm.iteration}, {alarm.message.rstrip('.')}"
    if policy is not None and policy.gold_win_rate is not None:
        yield f"preferred in {percent_interval(policy.gold_win_rate)} by gold"


def _judged(
    run: RunContents, found: Findings, policy: PolicyFindings | None, course: Course | None, *, judged: bool
) -> Iterator[str]:
    start = start_of(run.settings).noun
    if policy is None:
        yield "not evaluated on held-out prompts yet"
    elif policy.gold_win_rate is not None:
        wins = policy.gold_win_rate
        kind = (
            f"better than {start}"
            if is_above(wins, 0.5)
            else f"worse than {start}"
            if is_below(wins, 0.5)
            else f"not shown to differ from {start}"
        )
        yield f"{kind}: preferred in {percent_interval(wins)} by gold"
        yield f"gold {moved(policy.gold_gain.value) if policy.gold_gain else '–'}, proxy {signed(policy.proxy_gain)}"
    else:
        unknown = "no gold score is known" if judged else "whether people prefer it is unknown"
        yield f"{unknown}: {_score(run, found, policy)}"
    if course is not None and course.fallen:
        yield f"gold fell by {number(course.best_gold - course.end_gold)} from iteration {course.best} on"


def _score(run: RunContents, found: Findings, policy: PolicyFindings) -> str:
    """The changes, if no gold is known."""
    gain = policy.proxy_gain
    score = score_of(run.settings) if policy.name == "ppo" or uses_reward_model(run.settings) else "its score"
    if gain is None:
        return f"{score} is not comparable with that at the start"
    if gain.low is not None and gain.low > 0:
        return f"{score} rose by {signed(gain)}"
    if gain.high is not None and gain.high < 0:
        return f"{score} fell by {signed(gain)}"
    return f"{score} changed by {signed(gain)}, which may be noise"


def _drift(policy: PolicyFindings | None) -> Iterator[str]:
    if policy is not None and policy.reference_kl is not None:
        yield f"{number(policy.reference_kl, 1)} nats from the reference"
    if policy is not None and policy.length_ratio is not None:
        ratio = policy.length_ratio
        if ratio >= _MOVED_LENGTH:
            yield f"the responses are {ratio:.1f} times as long as at the start"
        elif ratio <= 1 / _MOVED_LENGTH:
            yield f"the responses are {percent(1 - ratio)} shorter than at the start"


def _alike(diversity: Diversity | None, start: str) -> Iterator[str]:
    if diversity is None or diversity.share_before is None:
        return
    lead = "the responses have become alike: " if diversity.is_collapsed else ""
    yield f"{lead}{diversity.opening_text()} (of {start}'s, {diversity.before_text()})"
    if diversity.repeats_itself:
        yield f"distinct-2 {number(diversity.distinct)}, of {number(diversity.distinct_before)} at the start"


def _reward_model(run: RunContents, found: Findings, name: str, policy: PolicyFindings | None) -> Iterator[str]:
    """How far its score can be trusted, if nothing else is known."""
    variant = variant_of(name)
    if not uses_reward_model(run.settings, variant) or (policy is not None and policy.gold_win_rate is not None):
        return
    chance = found.reward.chance
    if chance is None:
        yield "the accuracy of the reward model is unknown"
    else:
        doubt = (
            ""
            if chance.is_better
            else {"length": ", no better than “longer wins”", "worse than chance": ", worse than chance"}.get(
                chance.outcome, ", not shown to be better than chance"
            )
        )
        yield f"the reward model is correct on {percent_interval(chance.accuracy)} of the held-out judgments{doubt}"


def _is_doubted(run: RunContents, found: Findings, name: str) -> bool:
    variant = variant_of(name)
    chance = found.reward.chance if uses_reward_model(run.settings, variant) else None
    return chance is not None and not chance.is_better
