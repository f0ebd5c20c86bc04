"""GEM (Grebe et al. 2026, "Geometric Erasure by Contrastive Velocity Matching", arXiv 2606.00140).

    max(0, | y(x_t, c) - y0(x_t, c*) | - eta | y(x_t, c) - y0(x_t, c) |)

its equations 13 and 14, on pictures x_t of the concept c that the student half-made; c* is the
surrogate's prompt, or the empty one where none was told, y0 the frozen base. The output is drawn to
the surrogate's and pushed off the concept's, until it is eta times as far from the one as from the
other. |.| is a picture's root mean square, so that it weighs as much as the retained prompts
whatever a picture's size. The paper trains the queries and keys of Flux's double blocks on the
first ten steps of one picture at once; here it is the layers that read the text, and one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..engine.adapters import Adapters
from ..targets import text_layers
from .method import ErasureBase, Method, Moment

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser


def gem_loss(
    student: torch.Tensor, surrogate: torch.Tensor, concept: torch.Tensor, eta: float
) -> torch.Tensor:
    """The formula above of outputs (B, C, ...), the mean over pictures; a scalar."""
    drawn, pushed = (_distances(student, each) for each in (surrogate, concept))
    return torch.relu(drawn - eta * pushed).mean()


def _distances(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Root mean squares (B,); the gradient of a distance of 0 is 0, not NaN as a root's."""
    apart = (one - other).flatten(1)
    return torch.linalg.vector_norm(apart, dim=1) / apart.shape[1] ** 0.5


def loss(
    denoiser: Denoiser, adapters: Adapters, moment: Moment, erasure: ErasureBase
) -> torch.Tensor:
    with torch.no_grad(), adapters.switched_off():
        surrogate = denoiser.output(moment.noisy, moment.sigma, moment.neutral)
        concept = denoiser.output(moment.noisy, moment.sigma, moment.concept)
    student = denoiser.output(moment.noisy, moment.sigma, moment.concept)
    return gem_loss(student, surrogate, concept, erasure.eta)


METHOD = Method(
    "gem",
    "towards the surrogate, if there is one, and away from the concept, until it is far enough",
    text_layers,
    loss,
    surrogates=True,
)
