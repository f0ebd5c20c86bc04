"""The bootstrap over prompts: pictures of one prompt are drawn together (cluster bootstrap)."""

from collections.abc import Hashable, Sequence

import numpy as np

DRAWS, SEED = 500, 0
LEAST = 10  # prompts: of fewer, percentiles say nothing
BOUNDS = (2.5, 97.5)  # percentiles of a 95 % interval


def draws(prompts: Sequence[Hashable], count: int = DRAWS, seed: int = SEED) -> np.ndarray | None:
    """How often each draw takes each picture, (pictures, draws); None of too few prompts.

    `prompts` has each picture's. As many prompts as there are are drawn, with replacement.
    """
    places = {each: place for place, each in enumerate(dict.fromkeys(prompts))}
    if len(places) < LEAST:
        return None
    rng = np.random.default_rng(seed)
    taken = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), count)
    return taken.T[[places[each] for each in prompts]].astype(np.float64)


def interval(values: np.ndarray) -> list[float]:
    """The 95 % percentile interval of what the draws gave."""
    return [float(each) for each in np.percentile(values, BOUNDS)]


def mean_95(values: np.ndarray, weights: np.ndarray | None) -> list[float] | None:
    """The interval of a mean over pictures; None without draws."""
    return None if weights is None else interval(values @ weights / weights.sum(0))
