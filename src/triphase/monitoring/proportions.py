"""The interval of a mean of equal observations."""

from statistics import NormalDist


def of_the_same(value: float, count: int, least: float = 0.0, most: float = 1.0) -> tuple[float, float]:
    """95 % bounds of a mean whose ``count`` observations (at least 1) all equal ``value``, in ``least`` to ``most``.

    A value that was never observed has a share of at most u = z² / (count + z²), Wilson's upper bound (1927); in the
    worst case all of it is at one end:

        value − u·(value − least)   to   value + u·(most − value)

    So for a share of 1 the lower bound is Wilson's, count / (count + z²).
    """
    z = NormalDist().inv_cdf(0.975)
    unseen = z * z / (count + z * z)
    return value - unseen * (value - least), value + unseen * (most - value)
