"""A surrogate: asked for the concept, the model draws something else that the user names.

    || y(x_t, c) - y0(x_t, c*) ||^2

on pictures x_t of the concept c that the student half-made; c* is the surrogate's prompt, y0 the
frozen base. It is the model-based loss of Kumari et al. 2023, "Ablating Concepts in Text-to-Image
Diffusion Models" (arXiv 2303.13516), which calls c* the anchor and c the target. There
x_t is a noised picture of the anchor, and the student's own output is the target, without its
gradient. Here x_t is the concept's, as in ESD: those are the pictures that must change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...host.comfy_types import Conditions
from ..engine.adapters import Adapters
from ..targets import text_layers
from .method import ErasureBase, Method, Moment

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser


def surrogate_loss(
    denoiser: Denoiser,
    adapters: Adapters,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    concept: Conditions,
    *,
    surrogate: Conditions,
) -> torch.Tensor:
    """The formula above, with the adapters switched off for y0.

    Shapes: noisy (B, C, ...), sigma (B,). Returns a scalar.
    """
    with torch.no_grad(), adapters.switched_off():
        target = denoiser.output(noisy, sigma, surrogate)
    return (denoiser.output(noisy, sigma, concept) - target).square().mean()


def loss(
    denoiser: Denoiser, adapters: Adapters, moment: Moment, erasure: ErasureBase
) -> torch.Tensor:
    if moment.surrogate is None:
        raise ValueError("There is nothing to draw in the concept's place.")
    about = (moment.noisy, moment.sigma, moment.concept)
    return surrogate_loss(denoiser, adapters, *about, surrogate=moment.surrogate)


METHOD = Method(
    "surrogate",
    "draws what you name in surrogate in the concept's place",
    text_layers,
    loss,
    surrogates=True,
    needs_surrogates=True,
)
