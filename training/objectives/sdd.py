"""The objective SDD (Kim et al. 2023).

The paper is "Towards Safe Self-Distillation of Internet-Scale Text-to-Image Diffusion Models". The
loss is

    || y(z_t, c) - stopgrad y(z_t, null) ||^2

on pictures z_t of the concept c that the teacher half-made, a moving average of the student; the
target is the student's own unconditional output.
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


def sdd_loss(
    denoiser: Denoiser,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    concept: Conditions,
    null: Conditions,
) -> torch.Tensor:
    """SDD's equation 4. Shapes: noisy (B, C, ...), sigma (B,). Returns a scalar."""
    with torch.no_grad():
        target = denoiser.output(noisy, sigma, null)
    return (denoiser.output(noisy, sigma, concept) - target).square().mean()


def loss(
    denoiser: Denoiser, adapters: Adapters, moment: Moment, erasure: ErasureBase
) -> torch.Tensor:
    return sdd_loss(denoiser, moment.noisy, moment.sigma, moment.concept, moment.null)


METHOD = Method(
    "sdd",
    "towards the model's own unconditional output, with a moving average",
    text_layers,
    loss,
    averaged=True,
)
