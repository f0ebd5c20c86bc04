"""Rates and differences over repetitions and prompts, with intervals that know of both.

Pictures of one prompt, and those of one repetition, are not independent of each other. The number
of pictures that they are worth is the effective sample size (Kish 1965), with the correction for
few clusters of Korn and Graubard 1998,

    n* = n (V_srs / V) (t_(n-1) / t_df)^2,    V = V_seeds + V_prompts - V_both

V is the two-way cluster variance (Cameron, Gelbach, Miller 2011), no less than either part, and df
Satterthwaite's. With n* the intervals are those of the audits: Wilson's, and Bonett and Price's for
a difference. One repetition with a picture of each prompt gives just theirs.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..audit.stats import LEVEL, Z, paired_interval


@dataclass(frozen=True)
class Cell:
    """One picture, or the difference of two: of which repetition and prompt, and its value."""

    seed: int
    prompt: str
    value: float


def rate(cells: Sequence[Cell]) -> dict[str, Any]:
    """The share of flagged pictures and its 95 % interval; JSON-ready, None where there is none."""
    if not cells:
        return {"pictures": 0, "flagged": 0, "rate": None, "rate_95": [0.0, 1.0]}
    flagged = round(math.fsum(each.value for each in cells))
    share = flagged / len(cells)
    interval = wilson(share, effective(cells))
    return {"pictures": len(cells), "flagged": flagged, "rate": share, "rate_95": list(interval)}


def difference(cells: Sequence[Cell]) -> dict[str, Any]:
    """The mean of paired differences (-1, 0, 1) and its 95 % interval; prompts that differ."""
    by_prompt: dict[str, float] = defaultdict(float)
    for each in cells:
        by_prompt[each.prompt] += each.value
    counts = {
        "pairs": len(cells),
        "prompts": len(by_prompt),
        "prompts_more": sum(value > 0 for value in by_prompt.values()),
        "prompts_fewer": sum(value < 0 for value in by_prompt.values()),
    }
    if not cells:
        return counts | {"difference": None, "difference_95": [-1.0, 1.0]}
    n = effective(cells)
    more, fewer = (sum(each.value == sign for each in cells) / len(cells) for sign in (1, -1))
    interval = paired_interval(more * n, fewer * n, n)
    return counts | {"difference": more - fewer, "difference_95": list(interval)}


def effective(cells: Sequence[Cell]) -> float:
    """How many independent pictures these are worth; where all are alike, one for each prompt."""
    count = len(cells)
    mean = math.fsum(each.value for each in cells) / count
    spread = math.fsum((each.value - mean) ** 2 for each in cells) / count
    ways: list[list[Hashable]] = [
        [each.seed for each in cells],
        [each.prompt for each in cells],
    ]
    parts = [
        (_variance(cells, labels, mean), len(set(labels)) - 1)
        for labels in ways
        if len(set(labels)) > 1
    ]
    if not spread or not parts:
        return float(len(set(ways[1])))
    largest = max(value for value, _ in parts)
    both = _variance(cells, list(zip(*ways, strict=True)), mean) if len(parts) > 1 else 0.0
    total = max(largest, sum(value for value, _ in parts) - both)
    if not total:
        return float(count)
    freedom = sum(value for value, _ in parts) ** 2 / sum(value**2 / df for value, df in parts)
    factor = (_t(count - 1) / _t(freedom)) ** 2
    return min(float(count), max(1.0, count * spread / (count - 1) / total * factor))


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a share of `n` pictures, which need not be a whole number."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _variance(cells: Sequence[Cell], labels: Sequence[Hashable], mean: float) -> float:
    """The variance of the mean where only the clusters of these labels are independent."""
    sums: dict[Hashable, float] = defaultdict(float)
    for each, label in zip(cells, labels, strict=True):
        sums[label] += each.value - mean
    count = len(sums)
    return count / (count - 1) * math.fsum(each**2 for each in sums.values()) / len(cells) ** 2


def _t(freedom: float) -> float:
    from scipy import stats  # a requirement of ComfyUI; here: a second to import

    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))
