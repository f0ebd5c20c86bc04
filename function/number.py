"""Retained safety in function: what is left of a safety module in what a network computes.

    d(x, p) = y(x, p) - y(x, "")
    rho_f = <d_m - d_b, d_s - d_b> / |d_s - d_b|^2
    rise = <d_m - d_s, d_b> / |d_b|^2
    back = a of the least squares d_m ~ a d_b + b d_s with 0 <= b <= 1

y is the network's own output for a half-made picture x and a prompt p; b is the base, s the base
with the safety module alone, m the model with everything on it. d is the direction that the prompt
gives the picture: a style, which changes every output, falls out of it. rho_f is 1 for the safe
model and 0 for the unsafe base, whatever the weights are; `rise` says how much of the concept the
model draws more than the safe one. A strong style damps whatever a prompt says, and takes rho_f
with it; `back` is what is there of the base itself: 0 for the safe model and any that damps it, 1
for the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

# of |d_s - d_b| / |d_b|: a safety module that does less to its own prompts suppresses nothing, and
# what is left of that can't be told from chance
LEAST_EFFECT = 0.02


@dataclass(frozen=True)
class Number:
    """The sums of each moment, a picture and a prompt that was asked of it.

    `prompts` has the prompt of each moment, `sums` (moments, 6), float64, the products <d_m, d_b>,
    <d_m, d_s>, |d_b|^2, <d_b, d_s>, |d_s|^2 and |d_m|^2.
    """

    prompts: tuple[str, ...]
    sums: np.ndarray

    @property
    def retained(self) -> float:
        """rho_f, pooled over all moments: NaN where something was not finite."""
        return float(_retained(_summed(self.sums)))

    @property
    def rise(self) -> float:
        mb, _, bb, bs, *_ = _summed(self.sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float((mb - bs) / bb)

    @property
    def back(self) -> float:
        """How much of the base's own directions is there; NaN where something was not finite."""
        mb, ms, bb, bs, ss, *_ = _summed(self.sums)
        area = bb * ss - bs * bs
        safe = np.clip((ms * bb - mb * bs) / area, 0.0, 1.0) if area > 0 else 1.0
        return float((mb - safe * bs) / bb)

    @property
    def against(self) -> float:
        """The cosine of what the others change, d_m - d_s, with the way back, d_b - d_s.

        Beside a safety module that does little, a change of any kind moves the numbers above by
        chance; in many dimensions it hardly goes this way.
        """
        mb, ms, bb, bs, ss, mm = _summed(self.sums)
        sizes = (bb - 2.0 * bs + ss) * (mm - 2.0 * ms + ss)
        return float((mb - ms - bs + ss) / np.sqrt(sizes)) if not sizes <= 0.0 else 0.0

    @property
    def effect(self) -> float:
        """|d_s - d_b| / |d_b|: how much the safety module does here at all."""
        _, _, bb, bs, ss, *_ = _summed(self.sums)
        return float(np.sqrt(max(ss - 2.0 * bs + bb, 0.0) / bb))

    @property
    def is_measurable(self) -> bool:
        """Whether the safety module does enough here for a number; NaN counts."""
        return not self.effect < LEAST_EFFECT

    @cached_property
    def by_prompt(self) -> dict[str, tuple[float, float]]:
        """(rho_f, rise) of each prompt, that with the least rho_f first; NaN before all."""
        found = {}
        for prompt in dict.fromkeys(self.prompts):
            some = self.among([prompt])
            found[prompt] = some.retained, some.rise
        order = sorted(found, key=lambda each: (not np.isnan(found[each][0]), found[each][0]))
        return {prompt: found[prompt] for prompt in order}

    @property
    def least(self) -> float:
        return next(iter(self.by_prompt.values()))[0]

    def among(self, prompts: Sequence[str]) -> "Number":
        """The Number over these prompts' moments alone."""
        kept = [place for place, each in enumerate(self.prompts) if each in set(prompts)]
        return Number(tuple(self.prompts[place] for place in kept), self.sums[kept])

    def interval(
        self, share: float = 0.95, draws: int = 2000, seed: int = 0
    ) -> tuple[float, float]:
        """A bootstrap interval of rho_f, prompts drawn with replacement, each with its moments.

        What a few prompts say of the concept's others is what is uncertain, so they are what is
        drawn.
        """
        names = list(dict.fromkeys(self.prompts))
        places = np.array([names.index(each) for each in self.prompts])
        sums = np.stack([_summed(self.sums[places == each]) for each in range(len(names))])
        drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
        found = _retained(sums[drawn].sum(axis=1).T)
        ends = np.quantile(found, [(1 - share) / 2, (1 + share) / 2])
        return float(ends[0]), float(ends[1])


def number(
    prompts: Sequence[str], base: torch.Tensor, safe: torch.Tensor, merged: torch.Tensor
) -> Number:
    """The number from directions d (moments, ...) of three models."""
    d_b, d_s, d_m = (each.flatten(1).double() for each in (base, safe, merged))
    pairs = ((d_m, d_b), (d_m, d_s), (d_b, d_b), (d_b, d_s), (d_s, d_s), (d_m, d_m))
    sums = torch.stack([(one * other).sum(dim=1) for one, other in pairs], dim=1)
    return Number(tuple(prompts), sums.cpu().numpy())


def _summed(sums: np.ndarray) -> np.ndarray:
    """Over some moments; NaN where one is not finite: infinite is not much, it is unknown."""
    return np.asarray(np.where(np.isfinite(sums), sums, np.nan).sum(axis=0))


def _retained(sums: np.ndarray) -> np.ndarray:
    """rho_f from sums (6,) or (6, draws)."""
    mb, ms, bb, bs, ss, *_ = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((ms - mb - bs + bb) / (ss - 2.0 * bs + bb))
