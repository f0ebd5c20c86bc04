"""CLIP score: 100 cos(picture, prompt), as torchmetrics has it and most papers report it.

Hessel et al. 2021 (2104.08718) has 2.5 max(cos, 0): a fortieth of it where no cosine is negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .embeddings import unit
from .resampling import draws, mean_95

SCALE = 100.0


@dataclass(frozen=True)
class ClipScore:
    """The mean score of pictures with their own prompts, its 95 % interval, and with the others'.

    `others` is the same pictures' mean with all other prompts, `nearer_95` the interval of the
    difference. Where that is not above 0 the score says nothing: pictures and prompts are mixed up,
    or the text encoder is not that of the vision model.
    """

    mean: float
    mean_95: list[float] | None
    others: float | None
    nearer_95: list[float] | None
    pictures: int
    prompts: int

    @property
    def unrelated(self) -> bool:
        """Whether pictures are not shown to be nearer to their own prompts; False if unknown."""
        return self.nearer_95 is not None and self.nearer_95[0] <= 0


def scores(pictures: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The score of each picture (n, d) with the text of its row (n, d)."""
    return SCALE * (unit(pictures) * unit(texts)).sum(1)


def clip_score(pictures: np.ndarray, texts: np.ndarray, prompts: Sequence[str]) -> ClipScore:
    """The CLIP score of pictures (n, d) with their prompts' embeddings (n, d), n at least 1."""
    own, weights = scores(pictures, texts), draws(prompts)
    others = _with_others(pictures, texts, prompts)
    return ClipScore(
        float(own.mean()),
        mean_95(own, weights),
        None if others is None else float(others.mean()),
        None if others is None else mean_95(own - others, weights),
        len(own),
        len(set(prompts)),
    )


def _with_others(
    pictures: np.ndarray, texts: np.ndarray, prompts: Sequence[str]
) -> np.ndarray | None:
    """Each picture's mean score with every other prompt; None where there is one prompt alone."""
    first = {each: place for place, each in reversed(list(enumerate(prompts)))}
    if len(first) < 2:
        return None
    seen, told = unit(pictures), unit(texts)
    every = seen @ told[list(first.values())].sum(0)
    return SCALE * (every - (seen * told).sum(1)) / (len(first) - 1)
