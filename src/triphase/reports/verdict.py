"""The outcome of a run, in plain words: are the responses preferred, by how much, and was the reward model
exploited?"""

from collections.abc import Sequence
from dataclasses import dataclass

from triphase.monitoring.alarms import Alarm
from triphase.monitoring.wording import percent
from triphase.reports.contents import RunContents
from triphase.reports.findings import Findings, PolicyFindings
from triphase.reports.gold_course import Course
from triphase.reports.interval_wording import moved, signed
from triphase.reports.intervals import Interval
from triphase.reports.people_wins import PeopleWin
from triphase.reports.policy_verdicts import Tone, has_parted, is_hacked
from triphase.reports.scored_by import score_of, uses_reward_model
from triphase.reports.seeds import SeedFindings
from triphase.reports.starting_point import left_out_of, start_of
from triphase.reports.tables import policy_name
from triphase.reports.without_gold import alike_text, without_gold


@dataclass(frozen=True, slots=True)
class Verdict:
    """A headline and the sentences under it. ``tone`` determines only its color: the words are complete."""

    tone: Tone
    headline: str
    sentences: tuple[str, ...]


def verdict_of(run: RunContents, found: Findings, people: Sequence[PeopleWin] = ()) -> Verdict:
    """The verdict on the main PPO run; ``people`` is their preference, the headline if no gold is known."""
    sft, ppo = found.policies.get("sft"), found.policies.get("ppo")
    if ppo is None or sft is None:
        return Verdict("open", "No verdict yet", (_what_is_missing(run), *_hacking(run, found, ppo, judged=False)))
    if ppo.gold_win_rate is None:
        tone, headline, sentences = without_gold(run, found, ppo, people)
    else:
        tone, headline, sentences = _preference(run, sft, ppo, ppo.gold_win_rate, found.seeds)
    if found.course is not None and found.course.fallen:
        tone, headline, sentences = _past_its_best(found.course, score_of(run.settings), tone, headline, sentences)
    hacking = _hacking(run, found, ppo, judged=bool(people))
    followed = found.reward.chance if uses_reward_model(run.settings) else None
    doubted = followed is not None and not followed.is_better
    alike = ppo.diversity is not None and ppo.diversity.is_collapsed
    joined = "but" if tone == "good" else "and"
    if tone == "good" and (doubted or alike or any(sentence.startswith("Reward hacking: yes") for sentence in hacking)):
        tone = "open"
    if ppo.diversity is not None and alike and ppo.gold_win_rate is not None:
        headline = f"{headline}; {joined} the responses have become alike: {alike_text(ppo.diversity)}"
    return Verdict(tone, headline, (*sentences, *hacking, *_hacked_variants(found)))


def _hacked_variants(found: Findings) -> tuple[str, ...]:
    hacked = [
        policy_name(name)
        for name in found.alarms.keys() | found.policies.keys()
        if name not in ("sft", "ppo") and is_hacked(found, name)
    ]
    if not hacked:
        return ()
    return (f"Reward hacking in {'a variant' if len(hacked) == 1 else 'variants'}: {', '.join(sorted(hacked))}.",)


def judges(run: RunContents) -> str:
    """Whose preference gold represents."""
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
            f"That is the mean of {len(seeds.seeds)} seeds ({each}); its interval covers seeds and prompts."
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
        sentences.append(f"Among responses of similar length the gain is {within}.")
    return tone, headline, tuple(sentences)


def _past_its_best(
    course: Course, score: str, tone: Tone, headline: str, sentences: tuple[str, ...]
) -> tuple[Tone, str, tuple[str, ...]]:
    """An earlier iteration was better: that comes first, whatever the comparison with the SFT policy says."""
    best, end = (f"{value:.2f}".replace("-", "−") for value in (course.best_gold, course.end_gold))
    fell = f"gold fell from {best} at iteration {course.best} to {end} at the end"
    told = "Over-optimized: " if course.proxy_rose else "PPO went past its peak: "
    rose = f", while {score} rose" if course.proxy_rose else ""
    far = "" if course.end_kl is None else f", {course.end_kl:.1f} nats from the reference"
    advice = (
        f"The policy of iteration {course.best} was better than the last one, of iteration {course.end}{far}: "
        "take an earlier checkpoint, or train with a higher ppo.kl_coefficient."
    )
    if tone == "bad":
        return tone, headline, (f"{told}{fell}{rose}.", advice, *sentences)
    return "bad", f"{told}{fell}{rose}", (advice, *sentences)


def _hacking(run: RunContents, found: Findings, ppo: PolicyFindings | None, *, judged: bool) -> tuple[str, ...]:
    alarms = found.alarms.get("ppo", [])
    sentences = []
    if run.has_gold and (run.ppo or ppo):
        fooled = [alarm for alarm in alarms if alarm.name == "proxy-without-gold" and alarm.lasting]
        if fooled or has_parted(ppo) or (found.course is not None and found.course.has_parted):
            told = fooled[0].message if fooled else None
            sentences.append("Reward hacking: yes. " + _evidence(run, told, found.course, ppo))
        else:
            sentences.append(
                f"Reward hacking: none seen {'at the end' if ppo else 'so far'}; gold has not fallen while "
                f"{score_of(run.settings)} rose."
            )
    elif any("ppo/witness_score" in row for row in run.ppo):
        sentences.append(_by_witness([alarm for alarm in alarms if alarm.lasting]))
    elif run.ppo and judged:
        sentences.append("Reward hacking: there is no gold score; people's preferences are the only evidence.")
    elif run.ppo:
        sentences.append(
            "Reward hacking: cannot be determined without a gold score or people's judgment of these samples."
        )
    others = [alarm for alarm in alarms if alarm.name != "proxy-without-gold" or not alarm.lasting]
    if others:
        names = ", ".join(alarm.name for alarm in others)
        sentences.append(f"{len(others)} alarm{'s' if len(others) > 1 else ''} in training: {names}.")
    return tuple(sentences)


def _by_witness(lasting: Sequence[Alarm]) -> str:
    told = {alarm.name: alarm.message for alarm in lasting}
    if "proxy-without-witness" in told:
        return f"Reward hacking: likely. In training, {told['proxy-without-witness']}"
    if "witness-disagreement" in told:
        return f"Reward hacking: cannot be determined by the witness. In training, {told['witness-disagreement']}"
    return (
        "Reward hacking: none seen by the witness, a reward model trained on other "
        "comparisons; it cannot detect errors that both reward models share."
    )


def _evidence(run: RunContents, message: str | None, course: Course | None, ppo: PolicyFindings | None) -> str:
    if message is not None:
        return f"In training, {message}"
    if course is not None and course.has_parted:
        fell = f"gold by {moved(course.end_gold - course.best_gold)} since iteration {course.best}"
        return f"In training, {score_of(run.settings)} changed by {moved(course.proxy_moved)}, {fell}."
    assert ppo is not None  # noqa: S101 - has_parted was true
    proxy, gold = signed(ppo.proxy_gain), signed(ppo.gold_gain)
    return f"On held-out prompts {score_of(run.settings)} changed by {proxy}, gold by {gold}."


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
