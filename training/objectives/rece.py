"""RECE (Gong et al. 2024, "Reliable and Efficient Concept Erasure ...", arXiv 2407.12383).

UCE's edit (uce.py), and then in each round the tokens c' that bring the concept back,

    c' = (rho I + sum_W W^T W)^-1 (sum_W W^T W0) c,

which solve min sum_W |W c' - W0 c|^2 + rho |c'|^2 over the layers W as they are by then; UCE's edit
maps these to c* too. With W = W0 T, c' = P c for P = (rho I + T^T G T)^-1 T^T G, G the sum of
W0^T W0. Three rounds are the paper's for nudity. Its rho is 0.1 and counts in the weights of SD1.4;
here it counts in the mean of T^T G T's diagonal, so that it means the same in every network. What a
round has erased is among what the next preserves: c' is much like c, and without that c is moved
past c* once more in each round, as far as it was from it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .closed_form import ClosedForm, Sums
from .uce import LAMBDA, edit

ROUNDS, RHO = 3, 0.01


def revival(weights: torch.Tensor, found: torch.Tensor, ridge: float) -> torch.Tensor:
    """P above, (C, C), of G `weights` and T `found`; `ridge` is rho."""
    now = found.T @ weights
    solved: torch.Tensor = torch.linalg.solve(
        now @ found + ridge * torch.eye(len(now)).to(now), now
    )
    return solved


def maps(sums: Sums) -> Iterator[torch.Tensor]:
    """T after UCE's edit, and after each round."""
    ridge, one = LAMBDA * sums.unit, sums.identity
    kept = sums.preserve * sums.kept
    found = one + edit(sums.concept, sums.instead, kept, ridge)
    yield found
    kept = kept + sums.concept
    for _ in range(ROUNDS):
        size = (found.T @ sums.weights @ found).diagonal().mean().item()
        back = revival(sums.weights, found, RHO * size)
        revived = back @ sums.concept @ back.T
        found = found @ (one + edit(revived, sums.instead @ back.T, kept, ridge))
        kept = kept + revived
        yield found


METHOD = ClosedForm(
    "rece", "uce, and then the same for what would bring the concept back", 1 + ROUNDS, maps
)
