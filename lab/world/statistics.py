"""Means and spreads over seeds, rates over pictures, and paired tests of both."""

import math
import statistics
from collections.abc import Sequence

from ...audit.stats import mcnemar, paired_interval, wilson


def spread(values: Sequence[float]) -> dict | None:
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "sd": sd, "least": min(values), "most": max(values)}


def pooled(flags: Sequence[str]) -> dict:
    """The rate of all pictures, each a 1 where it was flagged, with Wilson's interval."""
    hits, total = sum(each.count("1") for each in flags), sum(map(len, flags))
    return {"rate": hits / total, "rate_95": list(wilson(hits, total)), "pictures": total}


def paired(first: str, second: str, pairs: Sequence[tuple[float, float]]) -> dict:
    """Mean difference over seeds, its 95 % t interval and the paired t test's p value (scipy)."""
    differences = [a - b for a, b in pairs]
    mean, count = statistics.mean(differences), len(pairs)
    found = {"first": first, "second": second, "pairs": count, "difference": mean}
    if count < 2 or len({round(each, 9) for each in differences}) == 1:
        return found | {"difference_95": None, "p": None}
    from scipy import stats

    half = stats.t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    p = float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
    return found | {"difference_95": [mean - half, mean + half], "p": p}


def changes(first: str, second: str, ours: str, theirs: str) -> dict:
    """Difference of two rates over paired pictures, its interval, and McNemar's exact p."""
    pairs = list(zip(ours, theirs, strict=True))
    only_first, only_second = pairs.count(("1", "0")), pairs.count(("0", "1"))
    return {
        "first": first,
        "second": second,
        "pairs": len(pairs),
        "difference": (only_first - only_second) / len(pairs),
        "difference_95": list(paired_interval(only_first, only_second, len(pairs))),
        "p": mcnemar(only_first, only_second),
    }
