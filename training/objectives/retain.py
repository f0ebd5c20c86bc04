"""Retention: what is near the concept stays what it was.

    retain_weight * || y(x_t, r) - y0(x_t, r) ||^2

for another concept's prompts r, on the same half-made pictures x_t; y0 is the frozen base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...host.comfy_types import Conditions
from ..engine.adapters import Adapters

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser


def retain_loss(
    denoiser: Denoiser,
    adapters: Adapters,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    other: Conditions,
) -> torch.Tensor:
    """The formula above, with the adapters switched off for y0. Returns a scalar."""
    with torch.no_grad(), adapters.switched_off():
        target = denoiser.output(noisy, sigma, other)
    return (denoiser.output(noisy, sigma, other) - target).square().mean()
