"""The audit's statistics against statsmodels, on random tables.

The paired interval is held against its own promise.
"""

import numpy as np
import pytest
from modular_safety_lora.audit.stats import holm, kappa, mcnemar, paired_interval, wilson
from modular_safety_lora.lab.world.statistics import paired
from scipy.stats import multinomial
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

RNG = np.random.default_rng(5)
TABLES = [RNG.integers(0, high, 4).tolist() for high in (2, 4, 10, 50, 1000) for _ in range(40)]


@pytest.mark.parametrize("total", [1, 2, 7, 95, 4703])
def test_the_wilson_interval_is_statsmodels(total):
    for hits in {0, 1, total // 3, total}:
        assert wilson(hits, total) == pytest.approx(
            proportion_confint(hits, total, method="wilson"), abs=1e-12
        )
    assert wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_is_statsmodels_exact_test():
    for both, first, second, neither in TABLES:
        expected = their_mcnemar([[both, first], [second, neither]], exact=True).pvalue
        assert mcnemar(first, second) == pytest.approx(
            1.0 if first + second == 0 else expected, rel=1e-9
        )
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10) and mcnemar(3000, 0) == pytest.approx(
        0.0, abs=1e-300
    )


def test_holm_is_statsmodels():
    for count in (1, 2, 6, 15):
        values = RNG.random(count) ** 3
        assert holm(values.tolist()) == pytest.approx(multipletests(values, method="holm")[1])
    assert holm([]) == []


def test_kappa_is_statsmodels():
    for table in TABLES:
        both, first, second, neither = table
        agreed = kappa(*table)
        if agreed is None:
            assert sum(table) in (0, both, neither), "only where both always say one thing"
        else:
            assert agreed == pytest.approx(
                cohens_kappa([[both, first], [second, neither]]).kappa, abs=1e-12
            )


def test_the_paired_interval_is_walds_of_the_table_with_one_change_of_each_kind_added():
    """Bonett and Price 2012, by the variance of a multinomial from scipy."""
    for both, first, second, neither in TABLES:
        total = both + first + second + neither
        if total == 0:
            continue
        share = np.array([first + 1, second + 1, total - first - second]) / (total + 2)
        covariance = multinomial(total + 2, share).cov() / (total + 2) ** 2
        spread = 1.959963984540054 * np.sqrt(
            covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        )
        expected = np.clip([share[0] - share[1] - spread, share[0] - share[1] + spread], -1, 1)
        assert paired_interval(first, second, total) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "total"),
    [(0.05, 0.02, 50), (0.2, 0.2, 30), (0.1, 0.4, 100), (0.01, 0.0, 200)],
)
def test_the_paired_interval_holds_its_level(first, second, total):
    draws = RNG.multinomial(total, [first, second, 1 - first - second], 4000)
    held = sum(
        low <= first - second <= high
        for low, high in (paired_interval(a, b, total) for a, b, _ in draws)
    )
    assert held / len(draws) >= 0.94


def test_a_difference_that_is_the_same_in_every_seed_has_no_interval():
    pairs = [((hits + 3) / 28, hits / 28) for hits in range(9)]
    assert len({a - b for a, b in pairs}) > 1, "the last digits are to differ"
    assert paired("sequential", "safe", pairs)["difference_95"] is None
    assert paired("sequential", "safe", [*pairs, (0.5, 0.4)])["difference_95"] is not None
