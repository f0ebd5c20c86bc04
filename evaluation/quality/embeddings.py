"""Embeddings as unit vectors, which all measures are of."""

import numpy as np

from ...options.errors import PackError
from ...options.words import amount


class QualityError(PackError, ValueError):
    """Nothing can be measured; the message says why, and the way out."""


def is_whole(vector: np.ndarray) -> bool:
    """Whether an embedding has a direction: no NaN, nothing infinite, not all zero."""
    return bool(np.isfinite(vector).all() and np.any(vector))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) of length 1, in float64. Raises QualityError for one without a direction."""
    found = np.asarray(vectors, np.float64)
    wrong = [place for place, each in enumerate(found) if not is_whole(each)]
    if wrong:
        raise QualityError(
            f"Not numbers: {len(wrong)} of {amount(len(found), 'embedding')} (first: {wrong[0]})."
        )
    return found / np.linalg.norm(found, axis=1, keepdims=True)
