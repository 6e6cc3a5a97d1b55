"""What came out of a run, in plain words: are the responses preferred, by how much, and was the reward model fooled?"""

from dataclasses import dataclass
from typing import Literal

from triphase.monitoring.wording import percent
from triphase.reports.contents import RunContents
from triphase.reports.course import Course
from triphase.reports.findings import Findings, PolicyFindings
from triphase.reports.intervals import Interval
from triphase.reports.scored_by import score_of, uses_reward_model
from triphase.reports.seeds import SeedFindings
from triphase.reports.start import left_out_of, start_of

Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A headline and the sentences under it. ``tone`` is for its color only: the words say it all."""

    tone: Tone
    headline: str
    sentences: tuple[str, ...]


def verdict_of(run: RunContents, found: Findings) -> Verdict:
    """The verdict on the main PPO run."""
    sft, ppo = found.policies.get("sft"), found.policies.get("ppo")
    if ppo is None or sft is None:
        return Verdict("open", "No verdict yet", (_what_is_missing(run), *_hacking(run, found, ppo)))
    tone: Tone = "open"
    if ppo.gold_win_rate is None:
        headline = "No verdict: no gold score is known"
        moved = f"{capital(score_of(run.settings))} moved by {signed(ppo.proxy_gain)}"
        sentences: tuple[str, ...] = (
            f"{moved} against {start_of(run.settings).noun}, but PPO was trained to raise it: that says nothing "
            "certain about people. Let people rank responses of both policies.",
        )
    else:
        tone, headline, sentences = _preference(run, sft, ppo, ppo.gold_win_rate, found.seeds)
    if found.course is not None and found.course.fallen:
        tone, headline, sentences = _past_its_best(found.course, score_of(run.settings), tone, headline, sentences)
    hacking = _hacking(run, found, ppo)
    followed = found.reward.chance if uses_reward_model(run.settings) else None
    doubted = followed is not None and not followed.is_better
    if tone == "good" and (doubted or any(sentence.startswith("Reward hacking: yes") for sentence in hacking)):
        tone = "open"
    return Verdict(tone, headline, (*sentences, *hacking))


def capital(text: str) -> str:
    """With a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def percent_interval(interval: Interval | None) -> str:
    """74 % (68 to 80 %)."""
    if interval is None:
        return "–"
    if interval.low is None or interval.high is None:
        return percent(interval.value)
    return f"{percent(interval.value)} ({100 * interval.low:.0f} to {percent(interval.high)})"


def signed(interval: Interval | None) -> str:
    """+1.06 (+0.95 to +1.17)."""
    if interval is None:
        return "–"
    bounds = "" if interval.low is None or interval.high is None else f" ({interval.low:+.2f} to {interval.high:+.2f})"
    return f"{interval.value:+.2f}{bounds}".replace("-", "−")


def interval_text(interval: Interval | None, digits: int = 2) -> str:
    """1.06 (0.95 to 1.17)."""
    if interval is None:
        return "–"
    bounds = ""
    if interval.low is not None and interval.high is not None:
        bounds = f" ({interval.low:.{digits}f} to {interval.high:.{digits}f})"
    return f"{interval.value:.{digits}f}{bounds}".replace("-", "−")


def judges(run: RunContents) -> str:
    """Whose preference gold stands for."""
    if (run.labeling or {}).get("source") == "simulated":
        return "the gold score that the simulated labelers rank by"
    return "the gold score"


def _preference(
    run: RunContents, sft: PolicyFindings, ppo: PolicyFindings, wins: Interval, seeds: SeedFindings | None
) -> tuple[Tone, str, tuple[str, ...]]:
    over = seeds.ppo if seeds else None
    if seeds and over and over.gold_win_rate:
        wins = over.gold_win_rate
    low, high, start = wins.low, wins.high, start_of(run.settings).noun
    tone: Tone = "open"
    if low is None or high is None:
        headline = "One prompt is too few for a verdict"
    elif low > 0.5:
        tone, headline = "good", f"PPO's responses are preferred: they win {percent(wins.value)} of the comparisons"
    elif high < 0.5:
        tone, headline = "bad", f"PPO made the responses worse: they win only {percent(wins.value)} of the comparisons"
    else:
        headline = f"No difference shown between PPO and {start}"
    bounds = "" if low is None or high is None else f" (95 % interval {100 * low:.0f} to {percent(high)}; even is 50 %)"
    sentences = [
        f"Judged by {judges(run)}, on {wins.prompts} held-out prompts with every response of PPO against every "
        f"response of {start}, PPO wins {percent(wins.value)}{bounds}."
    ]
    if seeds and over:
        each = ", ".join(percent(rate) for rate in over.by_seed)
        sentences.append(
            f"That is the mean of {len(seeds.seeds)} seeds ({each}); its interval holds seeds and prompts."
        )
    if sft.gold and ppo.gold:
        before, after = (f"{value:.2f}".replace("-", "−") for value in (sft.gold.value, ppo.gold.value))
        gained = f"Mean gold went from {before} to {after}, a gain of {signed(ppo.gold_gain)}"
        sentences.append(f"With seed {seeds.seeds[0]}: {gained[0].lower()}{gained[1:]}." if seeds else f"{gained}.")
        if seeds and over:
            sentences.append(f"Over all seeds the gain is {signed(over.gold_gain)}.")
            sentences += [
                f"The best of {best.n} responses of {start} by {score_of(run.settings)}, without training, gains "
                f"{signed(best.gold_gain)}."
                for best in seeds.best_of_n[-1:]
            ]
    if ppo.length and ppo.length.within is not None:
        within = f"{ppo.length.within:+.2f}".replace("-", "−")
        sentences.append(f"Among responses of like length the gain is {within}.")
    return tone, headline, tuple(sentences)


def _past_its_best(
    course: Course, score: str, tone: Tone, headline: str, sentences: tuple[str, ...]
) -> tuple[Tone, str, tuple[str, ...]]:
    """An earlier iteration was better: that comes first, whatever the comparison with the SFT policy says."""
    best, end = (f"{value:.2f}".replace("-", "−") for value in (course.best_gold, course.end_gold))
    fell = f"gold fell from {best} at iteration {course.best} to {end} at the end"
    told = "Over-optimized: " if course.proxy_rose else "PPO went past its best: "
    rose = f", while {score} rose" if course.proxy_rose else ""
    far = "" if course.end_kl is None else f", {course.end_kl:.1f} nats from the reference"
    advice = (
        f"The policy of iteration {course.best} was better than the last one, of iteration {course.end}{far}: "
        "take an earlier checkpoint, or train with a higher ppo.kl_coefficient."
    )
    if tone == "bad":
        return tone, headline, (f"{told}{fell}{rose}.", advice, *sentences)
    return "bad", f"{told}{fell}{rose}", (advice, *sentences)


def _hacking(run: RunContents, found: Findings, ppo: PolicyFindings | None) -> tuple[str, ...]:
    alarms = found.alarms.get("ppo", [])
    sentences = []
    if run.has_gold and (run.ppo or ppo):
        fooled = [alarm for alarm in alarms if alarm.name == "proxy-without-gold" and alarm.lasting]
        if fooled or _parted(ppo):
            sentences.append("Reward hacking: yes. " + _evidence(run, fooled[0].message if fooled else None, ppo))
        else:
            sentences.append(
                f"Reward hacking: none seen at the end; gold has not fallen while {score_of(run.settings)} rose."
            )
    elif any("ppo/witness_score" in row for row in run.ppo):
        fooled = [alarm for alarm in alarms if alarm.name == "proxy-without-witness" and alarm.lasting]
        sentences.append(
            f"Reward hacking: likely. In training, {fooled[0].message}"
            if fooled
            else "Reward hacking: none seen by the witness, a reward model of other comparisons; a fault that both "
            "reward models share it cannot see."
        )
    elif run.ppo:
        sentences.append("Reward hacking: cannot be told without a gold score or people's judgment of these samples.")
    others = [alarm for alarm in alarms if alarm.name != "proxy-without-gold" or not alarm.lasting]
    if others:
        names = ", ".join(alarm.name for alarm in others)
        sentences.append(f"{len(others)} alarm{'s' if len(others) > 1 else ''} in training: {names}.")
    return tuple(sentences)


def _parted(ppo: PolicyFindings | None) -> bool:
    """Whether on held-out prompts gold surely fell and the reward model's score surely rose."""
    if ppo is None or ppo.gold_gain is None or ppo.proxy_gain is None:
        return False
    fell = ppo.gold_gain.high is not None and ppo.gold_gain.high < 0
    return fell and ppo.proxy_gain.low is not None and ppo.proxy_gain.low > 0


def _evidence(run: RunContents, message: str | None, ppo: PolicyFindings | None) -> str:
    if message is not None:
        return f"In training, {message}"
    assert ppo is not None  # noqa: S101 - _parted was true
    proxy, gold = signed(ppo.proxy_gain), signed(ppo.gold_gain)
    return f"On held-out prompts {score_of(run.settings)} moved by {proxy}, gold by {gold}."


def _what_is_missing(run: RunContents) -> str:
    absent = left_out_of(run.settings)
    if "ppo" in absent and not run.ppo:
        return f"PPO is left out: {absent['ppo']}."
    wanted = {"sft": start_of(run.settings).tuned, "reward": uses_reward_model(run.settings), "ppo": True}
    phases = {"sft": ("supervised fine-tuning", run.sft), "reward": ("the reward model", run.reward)}
    phases["ppo"] = ("PPO", run.ppo)
    missing = [name for step, (name, rows) in phases.items() if wanted[step] and step not in absent and not rows]
    if missing:
        return f"Not run yet: {', '.join(missing)}."
    return "The policies have not been evaluated on held-out prompts yet (triphase evaluate)."
