"""Captions of figures: each sentence follows from the values that are drawn, none is fixed praise."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from triphase.monitoring.alarm_rules import RULES, Limits
from triphase.monitoring.metrics import Row
from triphase.monitoring.noise import WINDOW
from triphase.monitoring.wording import number, percent
from triphase.reports.findings import RewardFindings
from triphase.reports.gold_course import Course
from triphase.reports.interval_wording import capital, percent_interval
from triphase.reports.intervals import Interval
from triphase.reports.policy_comparison import BestOfN, LengthStratified
from triphase.reports.reward_quality import Reliability

_FAR = 1.5
_WATCHED = {
    "reference KL": "ppo/reference_kl",
    "ratios": "ppo/ratio_max",
    "entropy": "ppo/entropy",
    "EOS rate": "ppo/eos_rate",
    "length": "ppo/mean_length",
    "clip fraction": "ppo/clip_fraction",
    "repetition": "ppo/distinct_2",
    "similarity of responses to different prompts": "ppo/self_similarity",
    "length and score": "ppo/length_score_correlation",
    "spread and range of the scores": "ppo/score_deviation",
    "the critic": "ppo/explained_variance",
    "gold against proxy": "ppo/gold_score",
    "the witness against proxy": "ppo/witness_score",
}


_FEWEST = {
    "ppo/explained_variance": 2 * Limits().critic_iterations,
    **{rule.metric: rule.window + rule.relative for rule in RULES},
}
"""Iterations that a rule needs; rules of several metrics compare a mean of some with the start."""


def watched(rows: Sequence[Row]) -> str:
    """What the alarms checked in these iterations, and what needs more of them, as a sentence."""
    counts = {name: sum(metric in row for row in rows) for name, metric in _WATCHED.items()}
    known = [name for name, count in counts.items() if count]
    names = [name for name in known if counts[name] >= _FEWEST.get(_WATCHED[name], WINDOW + 1)]
    if not known:
        return "None; there was nothing to check."
    told = f"None. Checked: {_listed(names)}." if names else "None."
    few = [name for name in known if name not in names]
    return f"{told} Too few iterations for: {_listed(few)}." if few else told


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def accuracy_caption(reward: RewardFindings) -> str:
    """The reward model's accuracy compared with "longer wins" and the noise ceiling."""
    if reward.accuracy is None:
        return ""
    sentences = [f"The reward model is correct on {percent_interval(reward.accuracy)} of the held-out judgments."]
    if reward.chance is not None:
        ahead = reward.chance.advantage
        if ahead.low is not None and ahead.low > 0:
            sentences.append("It is better than preferring the longer response.")
        elif ahead.high is not None and ahead.high < 0:
            sentences.append("It is worse than preferring the longer response.")
        else:
            sentences.append("It is not shown to be better than preferring the longer response.")
    ceiling = reward.noise_ceiling
    if ceiling is not None:
        side = "under" if reward.accuracy.value < ceiling else "not under"
        sentences.append(f"It is {side} the {percent(ceiling)} that the labelers' own noise allows.")
    return " ".join([*sentences, "Pairs with an even target are left out; equal scores count ½."])


def reliability_caption(found: Reliability | None) -> str:
    """A sentence on whether the reward model's confidence matches its accuracy; empty without data."""
    bins = [each for each in found.bins if each.low >= 0.5 - 1e-9] if found else []
    count = sum(each.count for each in bins)
    if not count:
        return ""
    claimed = sum(each.predicted * each.count for each in bins) / count
    observed = sum(each.observed * each.count for each in bins) / count
    if abs(claimed - observed) < 0.02:
        judged = "about as confident as it is accurate"
    else:
        judged = "more confident than it is accurate" if claimed > observed else "less confident than it is accurate"
    return (
        f"Its mean confidence in the response that it prefers is {percent(claimed)}, and "
        f"{percent(observed)} of the labels agree: {judged}. The numbers under the points count judgments."
    )


def win_rate_caption(rates: Mapping[str, Interval], start: str = "SFT") -> str:
    """Which policies are better than ``start``, which are worse, and for which neither is shown."""
    if not rates:
        return ""
    kinds: dict[str, list[str]] = {"better than": [], "worse than": [], "not shown to differ from": []}
    for name, rate in rates.items():
        if rate.low is not None and rate.low > 0.5:
            kinds["better than"].append(name)
        elif rate.high is not None and rate.high < 0.5:
            kinds["worse than"].append(name)
        else:
            kinds["not shown to differ from"].append(name)
    told = "; ".join(f"{kind} {start}: {', '.join(names)}" for kind, names in kinds.items() if names)
    return f"All pairs of samples of the same prompt, ties ½, with 95 % intervals over prompts. {capital(told)}."


def length_caption(found: LengthStratified | None) -> str:
    """In how many bins of similar length PPO's gold is higher."""
    gains = [each.gain for each in found.bins if each.gain is not None] if found else []
    if not gains:
        return "Gold among responses of similar length. The two policies have no length in common: nothing is compared."
    higher = sum(gain > 0 for gain in gains)
    told = f"PPO's is higher in {higher} of the {len(gains)} bins that both policies reach"
    if higher == len(gains):
        told += ": the gain is not due to length alone"
    elif not higher:
        told += ": any gain came with the length"
    return f"Mean gold among responses of similar length. {told}."


def course_sentences(courses: Mapping[str, Course]) -> str:
    """Where gold was best in each run, and how its end compares; empty without a known gold score."""
    if not courses:
        return ""
    return " ".join([*(_course_sentence(name, course) for name, course in courses.items()), "Means of 3 iterations."])


def _course_sentence(name: str, course: Course) -> str:
    best, end = number(course.best_gold), number(course.end_gold)
    if course.best == course.end:
        return f"{name}: gold is highest at the end, iteration {course.end} ({end})."
    surely = "clearly lower" if course.fallen else "not clearly lower"
    proxy = f"; the proxy rose by {number(course.proxy_moved)} meanwhile" if course.proxy_rose else ""
    return (
        f"{name}: gold was highest at iteration {course.best} ({best}); at the end, iteration {course.end}, it is "
        f"{end}: {surely}{proxy}."
    )


def overoptimization_caption(*, gold: bool, best: Sequence[BestOfN], score: str) -> str:
    """The elements that are drawn over √KL."""
    points = f"Dashed lines are {score}"
    points += ", full lines gold: each point is one iteration, measured on its rollout" if gold else ""
    points += "; lines are running means."
    if len(best) > 1:
        points += (
            " Best-of-n needs no training and little KL; its KL is the upper bound log n − (n − 1)/n, so compare "
            "curves by shape, not by KL."
        )
    return points


def histogram_caption(values: Mapping[str, Sequence[float]], start: str) -> str:
    """Which policies' scores are higher than the start's, and in what share of all pairs of responses."""
    before = sorted(values.get(start, ()))
    told = [
        f"{name}'s responses score higher than {start}'s in {percent(_share_above(after, before))} of all pairs"
        for name, after in values.items()
        if name != start and after and before
    ]
    return ("; ".join(told) + ", whatever the prompt; ties ½.") if told else "Of held-out prompts."


def _share_above(after: Sequence[float], before: Sequence[float]) -> float:
    """The share of pairs in which the first is higher, ties ½; ``before`` is sorted."""
    higher = sum(bisect_left(before, value) + bisect_right(before, value) for value in after)
    return higher / (2 * len(after) * len(before))


def score_and_length_caption(courses: Mapping[str, tuple[float, float, float, float]]) -> str:
    """The change in each run's length and score: (length, score) of the first and of the last iteration."""
    told = []
    for name, (length, score, last_length, last_score) in courses.items():
        rose = "rose" if last_score > score else "fell" if last_score < score else "stayed"
        if last_length > 1.1 * length:
            moved = "the responses became longer"
        elif last_length < length / 1.1:
            moved = "the responses became shorter"
        else:
            moved = "the length stayed within a tenth"
        told.append(
            f"{name}: the score {rose} from {number(score)} to {number(last_score)} while {moved} "
            f"({number(length, 1)} to {number(last_length, 1)} tokens)"
        )
    return "; ".join(told) + "." if told else ""


def ensemble_caption(rows: Sequence[Row]) -> str:
    """How much the members of an ensemble disagree at the end."""
    values = [row["ppo/reward_disagreement"] for row in rows if "ppo/reward_disagreement" in row]
    if not values:
        return ""
    far = ": the responses are unlike their training data" if values[-1] >= _FAR else ""
    return f"At the end the members disagree {number(values[-1])} times as much as on samples of the reference{far}."
