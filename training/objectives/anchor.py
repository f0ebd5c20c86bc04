"""The anchor: while a task trains beside a safety module, the concept stays where it was put.

    lambda || [y(x_t, c) - y(x_t, null)] with the task change - the same without it ||^2

The safety module, which put it there, is in the forward pass, frozen. The anchor is computed in
every third step or so and then weighs as much as one in each: regularising lazily costs a fraction
(StyleGAN2, Karras et al. 2020, appendix B, does it for its path lengths).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...host.comfy_types import Conditions
from ..engine.adapters import Adapters

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser


def anchor_loss(
    denoiser: Denoiser,
    adapters: Adapters,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    both: Conditions,
) -> torch.Tensor:
    """The formula above without lambda; a scalar.

    `both` are the conditions of 2 B pictures: one of the concept's prompts for each of the noisy
    latents (B, C, H, W), then the empty prompt for each.
    """
    size = len(noisy)
    twice = (torch.cat([noisy, noisy]), torch.cat([sigma, sigma]), both)

    def direction() -> torch.Tensor:
        output = denoiser.output(*twice)
        return output[:size] - output[size:]

    with torch.no_grad(), adapters.switched_off():
        held = direction()
    return (direction() - held).square().mean()
