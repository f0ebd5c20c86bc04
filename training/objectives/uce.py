"""UCE (Gandikota et al. 2024, "Unified Concept Editing in Diffusion Models", arXiv 2308.14761).

    W = (sum_E W0 c* c^T + p sum_P W0 r r^T + lambda W0)
        (sum_E c c^T + p sum_P r r^T + lambda I)^-1

its equation 7, for each layer that reads the text: E are the concept's tokens c, each with the c*
that it shall be as, P those r that are preserved. With D the second factor's inverse that is

    W = W0 T,  T = I + sum_E (c* - c) c^T D^-1.

In a UNet the layers are the keys and values of cross-attention, as in the paper; in a transformer
those that text passes before the first block, as in the authors' code for Flux. lambda is that
code's, and p, which is told, is 1 in it. It takes one token of a prompt, the last of its words;
RECE's takes all, by their places. Here are all, which needs no tokenizer, each beside the one of
the other text that it meets (engine/aligning.py), and lambda is a prompt's, not a token's.

What the words beside the concept hold of it is thereby taken away too. MACE (Lu et al. 2024, arXiv
2403.06135) does this alone by the formula, its equation 2: E are those words, lambda is 0 and p its
lambda_1. The concept's own words it leaves to a LoRA, trained with masks of the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .closed_form import ClosedForm, Sums

LAMBDA = 0.5  # in units of `Sums.unit`


def edit(
    concept: torch.Tensor, instead: torch.Tensor, kept: torch.Tensor, ridge: float
) -> torch.Tensor:
    """T - I above, (C, C).

    The sums are over tokens: c c^T, c* c^T, p r r^T, each (C, C); `ridge` is lambda.
    """
    divisor = concept + kept + ridge * torch.eye(len(concept)).to(concept)
    solved: torch.Tensor = torch.linalg.solve(divisor, (instead - concept).T)
    return solved.T  # the divisor is symmetric


def maps(sums: Sums) -> Iterator[torch.Tensor]:
    """T, once."""
    told = sums.concept, sums.instead, sums.preserve * sums.kept
    yield sums.identity + edit(*told, LAMBDA * sums.unit)


METHOD = ClosedForm(
    "uce", "edits the layers that read the text by a formula, in seconds, without steps", 1, maps
)
