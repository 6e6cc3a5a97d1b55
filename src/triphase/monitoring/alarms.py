"""Rules over the metrics of PPO: signs of reward hacking and of a collapsing policy, with remedies.

Pure functions of the rows of ppo/metrics.jsonl. "The start" is the first iteration: its rollout is written by the SFT
policy. A rule raises an alarm if its limit is exceeded by more than noise (noise.py); an alarm that was raised during a
run is in its report too, since no rule uses later iterations. The spread of an ensemble's scores is not a rule here: if
its members share data it falls while gold collapses.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from triphase.monitoring.alarm_rules import RULES, Hit, Limits, Rule
from triphase.monitoring.composite_rules import SIGNS, SURE_SIGNS
from triphase.monitoring.noise import WINDOW, Drift, Rows, moments

__all__ = ["WINDOW", "Alarm", "Limits", "find_alarms"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """The result of one rule that was triggered."""

    name: str
    """A short fixed name: ``entropy-collapse``."""
    iteration: int
    """The first at which the rule held."""
    lasting: bool
    """Whether it still held at the last iteration."""
    numbers: Mapping[str, float]
    """What triggered it, at that iteration: ``value``, ``limit``, and ``start`` if the rule compares with it."""
    message: str
    """What happened, in one sentence."""
    remedy: str
    """What to try."""
    samples: tuple[Mapping[str, Any], ...] = ()
    """Examples: ``prompt``, ``response`` and ``score`` of the responses of that iteration with the highest, the middle
    and the lowest score; empty if they are not available."""

    def line(self) -> str:
        """One line for the terminal."""
        return f"alarm {self.name} at iteration {self.iteration}: {self.message} Remedy: {self.remedy}"


def find_alarms(rows: Rows, limits: Limits | None = None) -> list[Alarm]:
    """The alarms of the iterations in ``rows`` (from ``read_metrics``), by first iteration."""
    limits = limits or Limits()
    hits: defaultdict[str, list[Hit]] = defaultdict(list)
    for rule in RULES:
        hits[rule.name] += _confirmed(_threshold_hits(rule, rows, limits), rows, limits.looks)
    for name, sign in SIGNS.items():
        found = sign(rows, limits)
        hits[name] += found if name in SURE_SIGNS else _confirmed(found, rows, limits.looks)
    last = rows[-1]["step"] if rows else 0
    alarms = [_alarm(name, sorted(each, key=lambda hit: hit.step), last) for name, each in hits.items() if each]
    if limits.variant is not None:
        alarms = [replace(alarm, remedy=_of_variant(alarm.remedy, limits.variant)) for alarm in alarms]
    return sorted(alarms, key=lambda alarm: (alarm.iteration, alarm.name))


def with_samples(alarms: Sequence[Alarm], rows: Iterable[Mapping[str, Any]]) -> list[Alarm]:
    """The alarms with samples among ``rows`` (the lines of samples.jsonl, whose ``iteration`` counts from 0)."""
    wanted = {alarm.iteration - 1 for alarm in alarms}
    found: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["iteration"] in wanted:
            found[row["iteration"]].append(row)
    return [replace(alarm, samples=shown_samples(found[alarm.iteration - 1])) for alarm in alarms]


def shown_samples(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The responses of an iteration with the highest, the middle and the lowest score, so that nobody picks them."""
    ordered = sorted(rows, key=lambda row: -row["score"])
    places = sorted({0, len(ordered) // 2, len(ordered) - 1}) if ordered else []
    return tuple({name: ordered[place][name] for name in ("prompt", "response", "score")} for place in places)


def _confirmed(hits: Sequence[Hit], rows: Rows, looks: int) -> list[Hit]:
    """The hits that end a run of this many consecutive iterations with hits."""
    steps, held = {hit.step for hit in hits}, dict[int, int]()
    for row in rows:
        held[row["step"]] = held[before] + 1 if (before := _before(held)) in steps and row["step"] in steps else 1
    return [hit for hit in hits if held[hit.step] >= looks]


def _before(held: Mapping[int, int]) -> int:
    """The step that was entered last; −1 if there is none."""
    return next(reversed(held), -1)


def _alarm(name: str, hits: Sequence[Hit], last: int) -> Alarm:
    first = hits[0]
    return Alarm(name, first.step, hits[-1].step == last, first.numbers, _message_of(first), first.remedy)


def _of_variant(remedy: str, name: str) -> str:
    """A remedy in the settings of a variant, whose checkpoints no command opens."""
    told = re.sub(
        r"take the policy of iteration (\d+) \([^)]*\)", r"end it at about iteration \1 (ppo.iterations)", remedy
    )
    return told.replace(" and take an earlier checkpoint", "").replace("ppo.", f"variants.{name}.")


def _message_of(hit: Hit) -> str:
    # Hyphens as minus signs, none before a zero.
    told = re.sub(r"-(?=0(\.0+)?(?![\d.]))", "", hit.message.format(**hit.numbers))
    return told.replace("%", " %").replace(" -", " −")


def _threshold_hits(rule: Rule, rows: Rows, limits: Limits) -> list[Hit]:
    found = moments(rows, rule.metric, window=rule.window, of=rule.of)
    if rule.relative:
        found = [each for each in found if each.start.step < each.now.step - rule.window + 1]
    liked = _steps_that_the_judge_prefers(rows, limits) if rule.unless_gold_rose else set()
    if rule.unless_gained_apart and not any("ppo/gold_score" in row for row in rows):
        shares = moments(rows, "ppo/length_share_of_gain", window=rule.window)
        liked |= {each.now.step for each in shares if each.now.value < limits.length_share}
    return [
        Hit(each.now.step, _numbers(rule, each, limits), rule.message, rule.remedy)
        for each in found
        if each.now.step not in liked and _is_beyond(rule, each, limits)
    ]


def _numbers(rule: Rule, each: Drift, limits: Limits) -> dict[str, float]:
    numbers = {"value": each.now.value, "limit": rule.limit(limits, each.start.value)}
    return numbers | ({"start": each.start.value} if rule.relative else {})


def _is_beyond(rule: Rule, each: Drift, limits: Limits) -> bool:
    beyond = each.now.value - rule.limit(limits, each.start.value)
    beyond = beyond if rule.above else -beyond
    if beyond <= 0 or rule.exact:
        return beyond > 0
    if rule.relative:
        return each.now.differs(each.start, limits.certainty)
    return each.now.error is not None and beyond > limits.margin * each.now.error


def _steps_that_the_judge_prefers(rows: Rows, limits: Limits) -> set[int]:
    """The iterations at which gold is significantly above its start; without gold the witness, while it agrees."""
    by_gold = any("ppo/gold_score" in row for row in rows)
    agreement = [] if by_gold else moments(rows, "ppo/witness_score_correlation")
    doubted = {each.now.step for each in agreement if each.now.value < limits.agreement}
    return {
        each.now.step
        for each in moments(rows, "ppo/gold_score" if by_gold else "ppo/witness_score")
        if each.now.value > each.start.value and each.now.differs(each.start, limits.certainty)
    } - doubted
