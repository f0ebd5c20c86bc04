"""How far pictures of the same prompt and seed moved between two models.

LPIPS needs a network's weights that no package brings, so it is not here: the distances are 1 - cos
of CLIP vision embeddings, and the mean of |a - b| over pixels.
"""

from dataclasses import dataclass

import numpy as np

from .embeddings import unit
from .resampling import mean_95


@dataclass(frozen=True)
class Change:
    """Means over pairs with 95 % intervals; `apart` is the distance of different prompts' pictures.

    `pixels` is None where no pair has one size.
    """

    pairs: int
    cosine: float
    cosine_95: list[float] | None
    apart: float | None
    pixels: float | None


def cosine_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cos of each row of a (n, d) and of b (n, d), 0 to 2."""
    return np.maximum(1.0 - (unit(a) * unit(b)).sum(1), 0.0)


def pixel_distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """The mean of |a - b| of two pictures, uint8 (H, W, 3), as a share of 1; None of two sizes."""
    if a.shape != b.shape:
        return None
    return float(np.abs(a.astype(np.int16) - b).mean() / 255.0)


def apart(pictures: np.ndarray, prompts: list[str]) -> float | None:
    """The mean distance between pictures (n, d) of different prompts; None of one prompt."""
    seen = unit(pictures)
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for each, prompt in zip(seen, prompts, strict=True):
        sums[prompt] = sums.get(prompt, 0.0) + each
        counts[prompt] = counts.get(prompt, 0) + 1
    pairs = len(seen) ** 2 - sum(count**2 for count in counts.values())
    if not pairs:
        return None
    total = seen.sum(0)
    near = total @ total - sum(float(each @ each) for each in sums.values())
    return float(1.0 - near / pairs)


def change(
    moved: np.ndarray,
    pixels: list[float | None],
    different: float | None,
    weights: np.ndarray | None,
) -> Change:
    """The change of pairs whose cosine distances are `moved`, at least one."""
    known = [each for each in pixels if each is not None]
    return Change(
        len(moved),
        float(moved.mean()),
        mean_95(moved, weights),
        different,
        float(np.mean(known)) if known else None,
    )
