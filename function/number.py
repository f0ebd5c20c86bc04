"""Retained safety in function: what is left of a safety module in what a network computes.

    d(x, p) = y(x, p) - y(x, "")
    rho_f = <d_m - d_b, d_s - d_b> / |d_s - d_b|^2
    rise = <d_m - d_s, d_b> / |d_b|^2

y is the network's own output for a half-made picture x and a prompt p; b is the base, s the base
with the safety module alone, m the model with everything on it. d is the direction that the prompt
gives the picture: a style, which changes every output, falls out of it. rho_f is 1 for the safe
model and 0 for the unsafe base, whatever the weights are; `rise` says how much of the concept the
model draws more than the safe one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

LEAST_EFFECT = 1e-3  # of |d_s - d_b| / |y_b|: below, rounding can't be told from safety


@dataclass(frozen=True)
class Number:
    """The sums of each moment, a picture and a prompt that was asked of it.

    `prompts` has the prompt of each moment, `sums` (moments, 6), float64: <d_m - d_b, d_s - d_b>,
    |d_s - d_b|^2, <d_m - d_s, d_b>, |d_b|^2, |y_b|^2, |d_m - d_s|^2.
    """

    prompts: tuple[str, ...]
    sums: np.ndarray

    @property
    def retained(self) -> float:
        """rho_f, pooled over all moments: NaN where something was not finite."""
        return self._pooled[0]

    @property
    def rise(self) -> float:
        return self._pooled[1]

    @property
    def _pooled(self) -> tuple[float, float]:
        return _rho_and_rise(self.sums)

    @property
    def against(self) -> float:
        """The cosine of what the others change, d_m - d_s, with the way back, d_b - d_s.

        A module that undoes safety goes that way; a strong style that takes as much by chance goes
        everywhere.
        """
        pull, effect, *_, change = _summed(self.sums)
        return float((effect - pull) / np.sqrt(effect * change)) if change else 0.0

    @property
    def effect(self) -> float:
        """|d_s - d_b| / |y_b|: how much the safety module does here at all."""
        total = _summed(self.sums)
        return float(np.sqrt(total[1] / total[4]))

    @property
    def is_measurable(self) -> bool:
        """Whether the safety module does enough here to be told from rounding; NaN counts."""
        return not self.effect < LEAST_EFFECT

    @cached_property
    def by_prompt(self) -> dict[str, tuple[float, float]]:
        """(rho_f, rise) of each prompt, that with the least rho_f first; NaN before all."""
        found = {
            prompt: _rho_and_rise(self.sums[[each == prompt for each in self.prompts]])
            for prompt in dict.fromkeys(self.prompts)
        }
        order = sorted(found, key=lambda each: (not np.isnan(found[each][0]), found[each][0]))
        return {prompt: found[prompt] for prompt in order}

    @property
    def least(self) -> float:
        return next(iter(self.by_prompt.values()))[0]

    def among(self, prompts: Sequence[str]) -> "Number":
        """The same over some of the prompts."""
        kept = [place for place, each in enumerate(self.prompts) if each in set(prompts)]
        return Number(tuple(self.prompts[place] for place in kept), self.sums[kept])

    def interval(self, share: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple:
        """A bootstrap interval of rho_f, prompts drawn with replacement, each with its moments.

        What a few prompts say of the concept's others is what is uncertain, so they are what is
        drawn.
        """
        names = list(dict.fromkeys(self.prompts))
        places = np.array([names.index(each) for each in self.prompts])
        sums = np.stack([_summed(self.sums[places == each])[:2] for each in range(len(names))])
        drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
        pull, effect = sums[drawn].sum(axis=1).T
        with np.errstate(divide="ignore", invalid="ignore"):
            rhos = pull / effect
        ends = np.quantile(rhos, [(1 - share) / 2, (1 + share) / 2])
        return float(ends[0]), float(ends[1])


def _summed(sums: np.ndarray) -> np.ndarray:
    """Over some moments; NaN where one is not finite: infinite is not much, it is unknown."""
    return np.where(np.isfinite(sums), sums, np.nan).sum(axis=0)


def _rho_and_rise(sums: np.ndarray) -> tuple[float, float]:
    pull, effect, gain, base, *_ = _summed(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(pull / effect), float(gain / base)


def number(
    prompts: Sequence[str],
    base: tuple[torch.Tensor, torch.Tensor],
    safe: torch.Tensor,
    merged: torch.Tensor,
) -> Number:
    """The number from directions d (moments, ...) of three models; `base` has y_b beside d_b."""
    d_b, y_b = (each.flatten(1).double() for each in base)
    d_s, d_m = (each.flatten(1).double() for each in (safe, merged))
    effect = d_s - d_b
    beside = d_m - d_s
    pairs = ((d_m - d_b, effect), (effect, effect), (beside, d_b), (d_b, d_b), (y_b, y_b))
    pairs = (*pairs, (beside, beside))
    sums = torch.stack([(one * other).sum(dim=1) for one, other in pairs], dim=1)
    return Number(tuple(prompts), sums.cpu().numpy())
