"""The rules that use more than one metric of PPO, or more than a limit: hacking, the scorer, the critic."""

from collections.abc import Callable, Mapping
from math import copysign, sqrt

from triphase.monitoring.alarm_rules import Hit, Limits
from triphase.monitoring.noise import WINDOW, Drift, Measured, Rows, episodes_of, moments


def proxy_without_gold(rows: Rows, limits: Limits) -> list[Hit]:
    """Gold well below its peak while the proxy score has risen since: the mark of reward hacking.

    The peak of many noisy iterations is always a little too high, so the fall must also be a considerable part of the
    gain, and the rise of the proxy score more than noise.
    """
    return _risen_alone(rows, limits, "ppo/gold_score", _HACKED, _HACKED_REMEDY)


def proxy_without_witness(rows: Rows, limits: Limits) -> list[Hit]:
    """The same by the score of a reward model of other comparisons: what can be measured without gold."""
    return _risen_alone(rows, limits, "ppo/witness_score", _PARTED, _HACKED_REMEDY)


def _risen_alone(rows: Rows, limits: Limits, judge: str, message: str, remedy: str) -> list[Hit]:
    both = [row for row in rows if judge in row and "ppo/proxy_score" in row]
    golds, proxies = moments(both, judge), moments(both, "ppo/proxy_score")
    hits, peak = [], 0
    for at, gold in enumerate(golds):
        if gold.now.value > golds[peak].now.value:
            peak = at
        best, proxy, proxy_then = golds[peak].now, proxies[at].now, proxies[peak].now
        if at - peak < WINDOW or not has_fallen(gold, best, limits):
            continue
        if proxy.value > proxy_then.value and proxy.differs(proxy_then, limits.margin):
            fall = limits.gold_share * max(0.0, best.value - gold.start.value)
            numbers = {
                "value": gold.now.value,
                "peak": best.value,
                _PEAK: best.step,
                "limit": best.value - fall,
                "proxy": proxy.value,
                "proxy_at_peak": proxy_then.value,
            }
            hits.append(Hit(gold.now.step, numbers, message, remedy.format(step=best.step)))
    return hits


def named_by(numbers: Mapping[str, float]) -> int | None:
    """The iteration that an alarm's remedy names, by its numbers: where its judge was at its best so far."""
    return int(numbers[_PEAK]) if _PEAK in numbers else None


def peaks(rows: Rows) -> list[int]:
    """The iterations that `proxy_without_gold` and `proxy_without_witness` name: where their judge was at its best."""
    found = []
    for judge in ("ppo/gold_score", "ppo/witness_score"):
        judged = moments([row for row in rows if judge in row and "ppo/proxy_score" in row], judge)
        if judged:
            found.append(max(judged, key=lambda each: (each.now.value, -each.now.step)).now.step)
    return found


_PEAK = "peak_iteration"
_HACKED = (
    "the reward model's score rose from {proxy_at_peak:.2f} to {proxy:.2f} while the gold score fell from {peak:.2f} "
    "to {value:.2f}: reward hacking."
)
_PARTED = (
    "the reward model's score rose from {proxy_at_peak:.2f} to {proxy:.2f} while that of the "
    "witness, a reward model trained on other comparisons, fell from {peak:.2f} to {value:.2f}: "
    "the policy exploits what only the first one prefers."
)
_HACKED_REMEDY = (
    "take the policy of iteration {step} (chat, export and evaluate with --checkpoint {step}; it is kept), raise "
    "ppo.kl_coefficient, or rank samples of this policy and train the reward model again."
)


def has_fallen(gold: Drift, best: Measured, limits: Limits) -> bool:
    """Whether gold is significantly below its best by a considerable part of the gain since the start."""
    fall = best.value - gold.now.value
    gained = best.value - gold.start.value
    return fall > limits.gold_share * gained and gold.now.differs(best, limits.certainty) and fall > 0


def length_preference(rows: Rows, limits: Limits) -> list[Hit]:
    """The score follows the length more than the judge does.

    The judge is the gold score if it is known. Otherwise the policy must have followed: a score that favors length is a
    problem once the responses have grown, one that disfavors it once they have shrunk.
    """
    judged = {each.now.step: each.now for each in moments(rows, "ppo/length_gold_correlation")}
    lengths = {each.now.step: each for each in moments(rows, "ppo/mean_length")}
    hits = []
    for each in moments(rows, "ppo/length_score_correlation"):
        now = each.now
        if now.error is None or abs(now.value) <= limits.length_correlation + limits.margin * now.error:
            continue
        judge = judged.get(now.step)
        if judge is not None:
            excess = abs(now.value) - copysign(1, now.value) * judge.value
            error = sqrt(now.error**2 + (judge.error or 0.0) ** 2)
            speaks = excess > limits.length_correlation + limits.margin * error
        else:
            speaks = now.step in lengths and _followed(lengths[now.step], now.value, limits)
        if speaks:
            numbers = {"value": now.value, "limit": limits.length_correlation}
            hits.append(Hit(now.step, numbers | ({"judge": judge.value} if judge else {}), *_liking(judge is not None)))
    return hits


def _followed(length: Drift, correlation: float, limits: Limits) -> bool:
    factor = length.now.value / length.start.value if length.start.value else 1.0
    moved = factor > limits.length_moved if correlation > 0 else factor < 1 / limits.length_moved
    return moved and length.now.differs(length.start, limits.certainty)


def _liking(judge: bool) -> tuple[str, str]:
    compared = ", against {judge:.2f} of length and gold" if judge else ", and the responses follow"
    return (
        f"length and score are correlated ({{value:.2f}}{compared}; limit {{limit:.2f}}).",
        "find out why the scorer rewards length; for a reward model, collect comparisons of "
        "equal length, or more comparisons.",
    )


def score_without_spread(rows: Rows, limits: Limits) -> list[Hit]:
    """The scorer gives all responses the same score, several iterations in a row: nothing can be learned from it."""
    have = [row for row in rows if "ppo/score_deviation" in row and "ppo/proxy_score" in row]
    flat = [_is_flat(row, have[0], limits) for row in have]
    return [
        Hit(
            have[at]["step"],
            {
                "value": have[at]["ppo/score_deviation"],
                "limit": limits.score_spread * have[0]["ppo/score_deviation"],
                "start": have[0]["ppo/score_deviation"],
                "score": have[at]["ppo/proxy_score"],
            },
            "all responses get nearly the same score, {score:.3g} ± {value:.1g} (± {start:.1g} at the start): PPO "
            "learns nothing from it.",
            "inspect the samples and their scores; raise ppo.kl_coefficient if all responses have become alike.",
        )
        for at in range(WINDOW - 1, len(have))
        if all(flat[at - WINDOW + 1 : at + 1])
    ]


def _is_flat(row: Mapping[str, float], start: Mapping[str, float], limits: Limits) -> bool:
    # Scores are float32: constant ones may show a deviation by rounding.
    rounding = 1e-6 * max(1.0, abs(row["ppo/proxy_score"]))
    return row["ppo/score_deviation"] <= max(rounding, limits.score_spread * start["ppo/score_deviation"])


def score_out_of_range(rows: Rows, limits: Limits) -> list[Hit]:
    """The mean score is far from all scores of the SFT policy's samples.

    If scores are calibrated (``Limits.calibrated``) those have mean 0 and deviation 1; else the first iteration's own
    mean and deviation are used.
    """
    have = [row for row in rows if "ppo/score_deviation" in row and "ppo/proxy_score" in row]
    if not have:
        return []
    middle, unit = (0.0, 1.0) if limits.calibrated else _scale(have[0])
    hits = []
    for each in moments(have, "ppo/proxy_score"):
        distance = abs(each.now.value - middle)
        if each.now.error is None or unit <= 0:
            continue
        if distance - limits.margin * each.now.error > limits.score_range * unit:
            numbers = {"value": each.now.value, "limit": limits.score_range, "distance": distance / unit}
            hits.append(Hit(each.now.step, numbers, _FAR, _FAR_REMEDY))
    return hits


_FAR = (
    "the mean score {value:.3g} is {distance:.1f} standard deviations from that of the SFT policy's samples (limit "
    "{limit:.0f}): the scorer has seen nothing like these responses."
)
_FAR_REMEDY = (
    "raise ppo.kl_coefficient or set ppo.score_clip; rank samples of this policy and train the scorer on them."
)


def _scale(start: Mapping[str, float]) -> tuple[float, float]:
    """Mean of the first scores, and an upper confidence bound of their deviation, since they are few."""
    count = episodes_of(start) or 2.0
    return start["ppo/proxy_score"], start["ppo/score_deviation"] * (1 + 2 / sqrt(2 * count))


def idle_critic(rows: Rows, limits: Limits) -> list[Hit]:
    """The critic has had time, and is worse than none or does not distinguish returns.

    How much of the returns can be predicted depends on the task, and may be little: a critic that learns may explain
    next to nothing of them. What no sound critic shows is known, though. One with constant predictions explains exactly
    0; and one whose predictions add to the variance of the returns is significantly below 0.
    """
    window = limits.critic_iterations
    sizes = moments(rows, "ppo/explained_variance", window=window, of=abs)
    hits = []
    for at, each in enumerate(moments(rows, "ppo/explained_variance", window=window)):
        now, silent = each.now, sizes[at].now.value < limits.predicting
        harmful = now.error is not None and now.value + limits.margin * now.error < limits.explained_variance
        if at >= window and (silent or harmful):
            limit = 0.0 if silent else limits.explained_variance
            numbers = {"value": now.value, "limit": limit, "window": float(window)}
            hits.append(Hit(now.step, numbers, *(_SILENT if silent else _HARMFUL)))
    return hits


_SILENT = (
    "over the last {window:.0f} iterations the critic does not predict the returns (it explains "
    "{value:.3f} of their variance): the critic does not learn.",
    "raise ppo.optimizer.head_learning_rate or ppo.value_coefficient.",
)
_HARMFUL = (
    "over the last {window:.0f} iterations the critic explains {value:.2f} of the variance of "
    "the returns: it is worse than no critic.",
    "lower ppo.optimizer.head_learning_rate or ppo.value_coefficient, or use ppo.advantage_estimator rloo.",
)


def not_finite(rows: Rows, limits: Limits) -> list[Hit]:
    """A metric was NaN or infinite."""
    hit = [row for row in rows if row.get("nonfinite")]
    return [
        Hit(
            row["step"],
            {"value": float(len(hit)), "limit": 0.0},
            f"{', '.join(row['nonfinite'])} came out as NaN or infinite.",
            "find out why the scorer had no score; the message on the skipped step names the responses."
            if "ppo/proxy_score" in row["nonfinite"]
            else "lower the learning rate, or set model.dtype: float32.",
        )
        for row in hit
    ]


SURE_SIGNS = ("not-finite", "score-without-spread")
"""Rules that need no confirmation: a non-finite metric, and scores that were equal several iterations in a row."""

SIGNS: dict[str, Callable[[Rows, Limits], list[Hit]]] = {
    "proxy-without-gold": proxy_without_gold,
    "proxy-without-witness": proxy_without_witness,
    "length-score-correlation": length_preference,
    "score-without-spread": score_without_spread,
    "score-out-of-range": score_out_of_range,
    "critic-not-learning": idle_critic,
    "not-finite": not_finite,
}
