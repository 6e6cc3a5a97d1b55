"""The interval of a mean of which every observation says the same."""

from statistics import NormalDist


def of_the_same(value: float, count: int, least: float = 0.0, most: float = 1.0) -> tuple[float, float]:
    """95 % bounds of a mean whose ``count`` observations (at least 1) all are ``value``, of ``least`` to ``most``.

    What was not seen once has a share of at most u = z² / (count + z²), Wilson's upper bound (1927); at the worst all
    of it lies at one end:

        value − u·(value − least)   to   value + u·(most − value)

    So of a share of 1 the lower bound is Wilson's, count / (count + z²).
    """
    z = NormalDist().inv_cdf(0.975)
    unseen = z * z / (count + z * z)
    return value - unseen * (value - least), value + unseen * (most - value)
