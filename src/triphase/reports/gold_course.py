"""The course of a PPO run by its gold score: its best iterations, its end, and whether the end is clearly worse."""

from collections.abc import Sequence
from dataclasses import dataclass

from triphase.monitoring.alarm_rules import Limits
from triphase.monitoring.composite_rules import has_fallen
from triphase.monitoring.metrics import Row
from triphase.monitoring.noise import moments


@dataclass(frozen=True, slots=True)
class Course:
    """Means of three consecutive iterations, each named by its last.

    Attributes:
        best: the iteration with the highest gold.
        best_gold, end_gold: gold there and at the end.
        end: the last iteration.
        end_kl: reference KL of the last iteration, in nats; None if unknown.
        proxy_moved: the proxy score at the end minus that at the best iteration.
        fallen: whether gold is significantly lower at the end, by a considerable part of the gain.
        proxy_rose: whether the reward model's score is significantly higher at the end than at the best iteration.
    """

    best: int
    best_gold: float
    end: int
    end_gold: float
    end_kl: float | None
    proxy_moved: float
    fallen: bool
    proxy_rose: bool

    @property
    def has_parted(self) -> bool:
        """Whether gold fell from its best while the reward model's score rose."""
        return self.fallen and self.proxy_rose


def course_of(rows: Sequence[Row]) -> Course | None:
    """The course of these iterations; None unless gold is known for three of them."""
    both = [row for row in rows if "ppo/gold_score" in row and "ppo/proxy_score" in row]
    golds, proxies = moments(both, "ppo/gold_score"), moments(both, "ppo/proxy_score")
    if not golds:
        return None
    limits = Limits()
    at = max(range(len(golds)), key=lambda place: golds[place].now.value)
    best, end, then, now = golds[at].now, golds[-1], proxies[at].now, proxies[-1].now
    return Course(
        best=best.step,
        best_gold=best.value,
        end=end.now.step,
        end_gold=end.now.value,
        end_kl=both[-1].get("ppo/reference_kl"),
        proxy_moved=now.value - then.value,
        fallen=has_fallen(end, best, limits),
        proxy_rose=now.value > then.value and now.differs(then, limits.margin),
    )
