"""The statistics of audits: intervals of rates, paired tests, agreement. Counts in, numbers out."""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

LEVEL, Z = 0.95, 1.959963984540054  # of every interval, and the normal deviate that gives it
RESAMPLES = 10_000
NORMAL = NormalDist()
# how many prompts have this sum over this many pictures: ((sum, pictures), prompts), sorted
Kinds: TypeAlias = tuple[tuple[tuple[int, int], int], ...]


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


def bootstrap(kinds: Kinds) -> tuple[float, float] | None:
    """95 % BCa interval of a sum over prompts per picture (Efron 1987), resampled by prompt.

    Pictures of one prompt are alike, so whole prompts are drawn again. None where there is nothing
    to draw: one prompt, or all prompts with the same mean.
    """
    values, counts = np.array([kind for kind, _ in kinds]), np.array([count for _, count in kinds])
    prompts, (hits, total) = counts.sum(), counts @ values
    if prompts < 2 or len({hit / pictures for (hit, pictures), _ in kinds}) < 2:
        return None
    # prompts of a kind are the same, so their numbers are all that differs between draws. Of the
    # generators that numpy has this one never changes: a report must count as it once did.
    draws = np.random.RandomState(0).multinomial(prompts, counts / prompts, size=RESAMPLES)
    means = np.divide(*(draws @ values).T)
    mean = hits / total
    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    bias = NORMAL.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    without = (hits - values[:, 0]) / (total - values[:, 1])
    apart = counts @ without / prompts - without
    skew = (counts @ apart**3) / (6 * (counts @ apart**2) ** 1.5)
    ends = [
        NORMAL.cdf(bias + (bias + sign * Z) / (1 - skew * (bias + sign * Z))) for sign in (-1, 1)
    ]
    low, high = np.quantile(means, ends)
    return float(low), float(high)


@functools.lru_cache(maxsize=4096)
def clustered(kinds: Kinds) -> tuple[float, float]:
    """95 % interval of a rate over pictures, several of a prompt: `bootstrap`, and never less.

    It is not narrower than Wilson's of as many pictures. Where every prompt says the same, each
    counts as one picture, since nothing tells how alike others are.
    """
    prompts = sum(count for _, count in kinds)
    hits, total = (sum(kind[place] * count for kind, count in kinds) for place in (0, 1))
    if hits in (0, total):
        return wilson(prompts if hits else 0, prompts)
    if prompts < 2:
        return 0.0, 1.0  # one prompt says nothing of others
    return _wider(bootstrap(kinds), wilson(hits, total))


def exchanged(differences: Iterable[int]) -> float:
    """The exact p value of a test of sign flips by prompt (Fisher's randomisation, two-sided).

    `differences` has for each prompt the pictures that only the first audit flags, less those that
    only the second does. With one picture a prompt this is McNemar's exact test.
    """
    found = [each for each in differences if each]
    if not found:
        return 1.0
    from scipy.stats import binom

    chances = np.ones(1)  # of how many flip to the first, by pictures
    for size, count in sorted(Counter(map(abs, found)).items()):
        of_size = np.zeros(size * count + 1)
        of_size[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, of_size)
    total = len(chances) - 1
    far = np.abs(2 * np.arange(total + 1) - total) >= abs(sum(found))
    return min(1.0, float(chances[far].sum()))


def clustered_difference(kinds: Kinds, only_first: int, only_second: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired rates, several pictures of a prompt.

    `kinds` has the differences of `exchanged`. As in `clustered`, it is `bootstrap`, and not
    narrower than that of as many pictures, or of prompts where all say the same.
    """
    prompts = sum(count for _, count in kinds)
    total = sum(kind[1] * count for kind, count in kinds)
    if prompts < 2:
        return -1.0, 1.0
    pictures = paired_interval(only_first, only_second, total)
    found = bootstrap(kinds)
    if found is None:
        difference = only_first - only_second
        first, second = (
            round(prompts * max(0, each) / total) for each in (difference, -difference)
        )
        found = paired_interval(first, second, prompts)
    return _wider(found, pictures)


def kinds_of(sums: Iterable[tuple[int, int]]) -> Kinds:
    """The kinds of prompts, from the sum and the number of pictures of each."""
    return tuple(sorted(Counter(sums).items()))


def _wider(one: tuple[float, float] | None, other: tuple[float, float]) -> tuple[float, float]:
    return (min(one[0], other[0]), max(one[1], other[1])) if one else other
