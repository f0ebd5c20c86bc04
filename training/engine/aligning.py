"""Which token of one text stands beside which of another."""

import numpy as np
import torch


def beside(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """For each token (n, C) which one (n,) of another text (m, C) it stands beside.

    The two are warped onto each other so that tokens which are alike meet, in their order (dynamic
    time warping, Sakoe and Chiba 1978; the distance is 1 - cos). Words that both have stay
    themselves, whatever is before them; of several that one token meets, the most alike is its own.
    """
    one, two = (torch.nn.functional.normalize(each.double(), dim=1) for each in (rows, others))
    apart = (1.0 - one @ two.T).clamp(min=0.0).numpy()  # (n, m)
    ways = _ways(apart)
    found, nearest = np.zeros(len(rows), dtype=int), np.full(len(rows), np.inf)
    i, j = apart.shape
    while i and j:
        if apart[i - 1, j - 1] <= nearest[i - 1]:
            found[i - 1], nearest[i - 1] = j - 1, apart[i - 1, j - 1]
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        i, j = min(steps, key=lambda step: ways[step])
    return torch.from_numpy(found)


def _ways(apart: np.ndarray) -> np.ndarray:
    """The least distance of all ways to each pair of tokens, (n + 1, m + 1); 0 before the first."""
    n, m = apart.shape
    ways = np.full((n + 1, m + 1), np.inf)
    ways[0, 0] = 0.0
    for both in range(n + m - 1):  # pairs (i, j) with i + j = both depend on earlier ones alone
        i = np.arange(max(0, both - m + 1), min(n, both + 1))
        j = both - i
        before = np.minimum(np.minimum(ways[i, j], ways[i, j + 1]), ways[i + 1, j])
        ways[i + 1, j + 1] = apart[i, j] + before
    return ways
