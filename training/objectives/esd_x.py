"""ESD on cross-attention (Gandikota et al. 2023, "Erasing Concepts from Diffusion Models").

    || y(x_t, c) - ( y0(x_t, null) - eta (y0(x_t, c) - y0(x_t, null)) ) ||^2

on pictures x_t of the concept c that the student half-made; y0 is the frozen base. All combinations
are linear in the model's own output, so they hold for eps, v and velocity alike.
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


def esd_loss(
    denoiser: Denoiser,
    adapters: Adapters,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    concept: Conditions,
    *,
    null: Conditions,
    eta: float,
) -> torch.Tensor:
    """ESD's equation 7, with the adapters switched off for y0.

    Shapes: noisy (B, C, ...), sigma (B,). Returns a scalar.
    """
    with torch.no_grad(), adapters.switched_off():
        base_null = denoiser.output(noisy, sigma, null)
        target = base_null - eta * (denoiser.output(noisy, sigma, concept) - base_null)
    return (denoiser.output(noisy, sigma, concept) - target).square().mean()


def loss(
    denoiser: Denoiser, adapters: Adapters, moment: Moment, erasure: ErasureBase
) -> torch.Tensor:
    about = (moment.noisy, moment.sigma, moment.concept)
    return esd_loss(denoiser, adapters, *about, null=moment.null, eta=erasure.eta)


METHOD = Method("esd-x", "ESD on cross-attention; acts on the concept's words", text_layers, loss)
