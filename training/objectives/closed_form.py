"""Methods without training: the layers that read a prompt's encoding are changed by a formula.

All layers W0 that read one input become W0 T, with one map T (C, C) of that input. It is made from
sums over the prompts' tokens, so that their number costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sums:
    """What layers that share an input get of the prompts, summed over tokens; (C, C), float64.

    c is a token of the concept, c* the one that it shall be as, r one that is to stay:
    `concept` sum c c^T, `instead` sum c* c^T, `target` sum c* c*^T, `kept` sum r r^T. `weights` is
    the sum of W0^T W0 over the layers, `prompts` how many the concept has, `preserve` how much a
    token that is to stay counts beside one of the concept.
    """

    concept: torch.Tensor
    instead: torch.Tensor
    target: torch.Tensor
    kept: torch.Tensor
    weights: torch.Tensor
    prompts: int
    preserve: float = 1.0

    @property
    def unit(self) -> float:
        """The square of a number of c, summed over a prompt: ridges are measured in it.

        It is about 1 for each of CLIP's tokens.
        """
        return (self.concept.trace() / (self.prompts * len(self.concept))).item()

    @property
    def identity(self) -> torch.Tensor:
        return torch.eye(len(self.concept)).to(self.concept)


@dataclass(frozen=True)
class ClosedForm:
    """One way to erase in `rounds` steps that are computed, not trained.

    `words` say in a sentence what it does; `maps(sums)` gives T after each round. It draws what it
    is told in the concept's place, and what the empty prompt gives where it is told nothing.
    """

    name: str
    words: str
    rounds: int
    maps: Callable[[Sums], Iterator[torch.Tensor]]
    averaged = needs_surrogates = False
    surrogates = True


def left(sums: Sums, found: torch.Tensor) -> tuple[float, float]:
    """sum |W0 (T c - c*)|^2, and sum |W0 (T - I) r|^2, over the layers and tokens."""
    across = found @ sums.instead.T
    apart = found @ sums.concept @ found.T - across - across.T + sums.target
    moved = found - sums.identity
    return _size(sums.weights, apart), _size(sums.weights, moved @ sums.kept @ moved.T)


def sizes(sums: Sums) -> tuple[float, float]:
    """What `left` is measured by: sum |W0 (c - c*)|^2, and sum |W0 r|^2."""
    return left(sums, sums.identity)[0], _size(sums.weights, sums.kept)


def _size(weights: torch.Tensor, products: torch.Tensor) -> float:
    return (weights * products).sum().item()  # the trace of W0 products W0^T: both are symmetric
