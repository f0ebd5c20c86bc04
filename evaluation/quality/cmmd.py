"""CMMD (Jayasumana et al. 2024, 2401.09603): MMD^2 of CLIP embeddings, Gaussian kernel, x 1000.

    k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), sigma 10, embeddings of length 1

With h = 1 - k it is 2 mean h(x, y) - mean h(x, x') - mean h(y, y'): h is small where k is all but
1, and nothing is lost to rounding. The published code takes the mean over all pairs, each picture
with itself too (Gretton et al. 2012, eq. 5), which adds to the distance of few pictures; the
unbiased estimate leaves those out (eq. 3, and for paired pictures eq. 4).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .embeddings import unit
from .resampling import interval

SIGMA, SCALE = 10.0, 1000.0
BLOCK = 256  # pictures whose distances to all others are held at a time
LEAST = 2  # pictures of each side


@dataclass(frozen=True)
class Cmmd:
    """As the published code has it; the unbiased estimate, and that one's 95 % interval."""

    published: float
    unbiased: float
    unbiased_95: list[float] | None


def cmmd(
    x: np.ndarray,
    y: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    paired: bool = False,
    on_block: Callable[[], None] = lambda: None,
) -> Cmmd:
    """CMMD of embeddings (n, d) and (m, d). No more than a block of distances is held.

    `weights` has how often each bootstrap draw takes each picture, (n, draws) and (m, draws).
    `paired` pictures, x's and y's of the same place, are made with one seed: in the unbiased
    estimate they are no pair of independent pictures.
    """
    x, y = unit(x), unit(y)
    of_x, of_y = (
        np.column_stack([np.ones(len(each)), *([] if weights is None else [weights[side]])])
        for side, each in enumerate((x, y))
    )
    across = _sums(x, y, of_x, of_y, on_block)
    within = _sums(x, x, of_x, of_x, on_block), _sums(y, y, of_y, of_y, on_block)
    in_x, in_y = of_x.sum(0), of_y.sum(0)
    published = (2 * across / (in_x * in_y) - within[0] / in_x**2 - within[1] / in_y**2)[0]
    all_across = in_x * in_y
    if paired:
        same = -np.expm1(-_squared((x * y).sum(1)) / (2 * SIGMA**2))
        across = across - same @ (of_x * of_y)
        all_across = all_across - (of_x * of_y).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw may take one picture alone
        estimates = SCALE * (
            2 * across / all_across
            - within[0] / (in_x**2 - (of_x**2).sum(0))
            - within[1] / (in_y**2 - (of_y**2).sum(0))
        )
    drawn = estimates[1:][np.isfinite(estimates[1:])]
    return Cmmd(SCALE * published, float(estimates[0]), interval(drawn) if len(drawn) else None)


def _sums(
    a: np.ndarray,
    b: np.ndarray,
    of_a: np.ndarray,
    of_b: np.ndarray,
    on_block: Callable[[], None],
) -> np.ndarray:
    """The sum of h over all pairs, for each column of weights."""
    found = np.zeros(of_a.shape[1])
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        apart = -np.expm1(-_squared(a[rows] @ b.T) / (2 * SIGMA**2))
        if a is b:  # rounding leaves a picture a little away from itself
            np.fill_diagonal(apart[:, start:], 0.0)
        found += (of_a[rows] * (apart @ of_b)).sum(0)
        on_block()
    return found


def _squared(cosines: np.ndarray) -> np.ndarray:
    """|a - b|^2 of unit vectors."""
    return np.maximum(2.0 - 2.0 * cosines, 0.0)
