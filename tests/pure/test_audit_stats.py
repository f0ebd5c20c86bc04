"""The audit's statistics against statsmodels, on random tables.

The paired interval is held against its own promise.
"""

import numpy as np
import pytest
from modular_safety_lora.audit.stats import (
    bootstrap,
    clustered,
    clustered_difference,
    exchanged,
    holm,
    kappa,
    kinds_of,
    mcnemar,
    paired_interval,
    wilson,
)
from modular_safety_lora.lab.world.statistics import paired
from scipy.stats import bootstrap as their_bootstrap
from scipy.stats import multinomial, permutation_test
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


def prompts(rng, count: int, rate: float, alike: float, pictures: int = 3) -> np.ndarray:
    """Flagged pictures and pictures of some prompts; a high `alike` makes prompts differ little."""
    rates = rng.beta(rate * alike, (1 - rate) * alike, count)
    return np.stack([rng.binomial(pictures, rates), np.full(count, pictures)], axis=1)


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_cluster_bootstrap_is_scipys_over_prompts(rate):
    """Some prompts lack pictures, and the sums may be below 0, as differences are."""
    found = prompts(np.random.default_rng(8), 60, rate, 0.5)
    found[:9, 1] += 1
    found[:, 0] -= found[::-1, 0] // 2

    def mean(sums, pictures, axis=-1):
        return sums.sum(axis) / pictures.sum(axis)

    how = {"paired": True, "vectorized": True, "method": "BCa", "n_resamples": 20_000}
    expected = their_bootstrap(tuple(found.T), mean, rng=np.random.default_rng(1), **how)
    ours = bootstrap(kinds_of(map(tuple, found.tolist())))
    assert ours == pytest.approx(tuple(expected.confidence_interval), abs=0.006)
    assert ours == bootstrap(kinds_of(map(tuple, found[::-1].tolist()))), "in any order"


@pytest.mark.parametrize("rate", [0.02, pytest.param(0.2, marks=pytest.mark.long)])
def test_the_interval_of_clusters_holds_its_level_where_wilsons_does_not(rate):
    rng = np.random.default_rng(9)
    drawn = [prompts(rng, 95, rate, 0.5) for _ in range(150)]
    held = [clustered(kinds_of(map(tuple, each.tolist()))) for each in drawn]
    alone = [wilson(*each.sum(0).tolist()) for each in drawn]
    ours, theirs = (sum(low <= rate <= high for low, high in each) for each in (held, alone))
    assert ours / len(drawn) >= 0.93 and theirs / len(drawn) < 0.88


def test_prompts_that_all_say_the_same_count_once_each():
    none, every = (kinds_of([(hits, 3)] * 40) for hits in (0, 3))
    assert clustered(none) == wilson(0, 40) and clustered(every) == wilson(40, 40)
    assert clustered(kinds_of([(1, 3)] * 40)) == wilson(40, 120)
    assert clustered(kinds_of([(1, 3)])) == (0.0, 1.0), "one prompt says nothing of others"
    assert clustered_difference(none, 0, 0) == paired_interval(0, 0, 40)
    assert clustered_difference(every, 120, 0) == paired_interval(40, 0, 40)
    assert clustered_difference(kinds_of([(1, 3)]), 1, 0) == (-1.0, 1.0)


def test_sign_flips_are_mcnemar_where_a_prompt_has_one_picture():
    for _, first, second, _ in TABLES:
        assert exchanged([1] * first + [-1] * second + [0]) == pytest.approx(
            mcnemar(first, second), rel=1e-9
        )


def test_sign_flips_are_scipys_permutation_test_over_prompts():
    for _ in range(5):
        ahead = RNG.integers(-3, 4, 10)
        expected = permutation_test(
            (ahead, np.zeros(10)),
            lambda a, b, axis: (a - b).sum(axis),
            permutation_type="samples",
            n_resamples=np.inf,
            vectorized=True,
        )
        assert exchanged(ahead.tolist()) == pytest.approx(expected.pvalue, rel=1e-9)
