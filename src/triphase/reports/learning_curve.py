"""The benefit of more comparisons: the accuracy of reward models on a quarter, half and all of the prompts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from triphase.monitoring.wording import percent
from triphase.reports.intervals import Interval


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One reward model on some of the training prompts; accuracy is that on all held-out judgments."""

    share: float
    prompts: int
    pairs: int
    accuracy: float
    low: float | None
    high: float | None
    loss: float

    @property
    def interval(self) -> Interval:
        """The accuracy with its 95 % interval over held-out prompts."""
        return Interval(self.accuracy, self.low, self.high, self.prompts)


def gain_of_doubling(points: Sequence[CurvePoint]) -> float | None:
    """The average gain of doubling the prompts: the slope of accuracy over log₂ prompts, by least squares.

    None for fewer than two sizes.
    """
    sizes = [math.log2(point.prompts) for point in points if point.prompts]
    if len(set(sizes)) < 2:
        return None
    center = sum(sizes) / len(sizes)
    level = sum(point.accuracy for point in points) / len(points)
    covariance = sum((size - center) * (point.accuracy - level) for size, point in zip(sizes, points, strict=True))
    return covariance / sum((size - center) ** 2 for size in sizes)


def curve_sentences(points: Sequence[CurvePoint]) -> list[str]:
    """The curve as lines, and the gain of doubling."""
    lines = [
        f"{point.prompts} prompts, {point.pairs} pairs: {percent(point.accuracy)} of the held-out judgments"
        + ("" if point.low is None or point.high is None else f" ({percent(point.low)} to {percent(point.high)})")
        + f", {point.loss:.3f} nats per pair"
        for point in points
    ]
    gain = gain_of_doubling(points)
    if gain is not None:
        next_one = (
            "the next doubling brings about as much at most, and less near the noise ceiling"
            if gain > 0
            else "no gain by more of them is shown, and none is excluded: the intervals are those of the accuracies"
        )
        brought = f"{100 * gain:+z.1f}".replace("-", "−")
        lines.append(f"twice the prompts brought {brought} points of accuracy on average; {next_one}")
    return lines
