"""The statistics of audits: intervals of rates, paired tests, agreement. Counts in, numbers out."""

import functools
import math
from collections.abc import Sequence

LEVEL, Z = 0.95, 1.959963984540054  # of every interval, and the normal deviate that gives it


@functools.lru_cache(maxsize=4096)  # a report asks for the same few counts again and again
def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion at 95 % (Wilson 1927); (0, 1) for none counted."""
    if total == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # a requirement of ComfyUI; here: a second to import

    interval = binomtest(hits, total).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact p value of McNemar's test (McNemar 1947; binomial, two-sided).

    The test asks whether the two kinds of change are equally frequent.
    """
    changed = only_first + only_second
    if changed == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, changed).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm 1979); compare each with the level of all."""
    adjusted, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted


def paired_interval(only_first: float, only_second: float, total: float) -> tuple[float, float]:
    """95 % interval of the difference of two paired rates (Bonett and Price 2012).

    First minus second: Wald's with one change of each kind added, which holds its level for small
    counts; (-1, 1) for no pairs.
    """
    if total == 0:
        return -1.0, 1.0
    first, second = (only_first + 1) / (total + 2), (only_second + 1) / (total + 2)
    spread = Z * math.sqrt((first + second - (first - second) ** 2) / (total + 2))
    return max(-1.0, first - second - spread), min(1.0, first - second + spread)


def kappa(both: int, only_first: int, only_second: int, neither: int) -> float | None:
    """Cohen's kappa of two yes-or-no verdicts (Cohen 1960); None where both always say the same."""
    total = both + only_first + only_second + neither
    if total == 0:
        return None
    agreed = (both + neither) / total
    first, second = (both + only_first) / total, (both + only_second) / total
    chance = first * second + (1 - first) * (1 - second)
    return None if chance == 1 else (agreed - chance) / (1 - chance)
