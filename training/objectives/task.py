"""The task's own loss: denoising, in the model's own output y (see Denoiser).

    || y(x_t, c) - y* ||^2

or the pseudo-Huber loss or the absolute value of the same difference e, 2 d (sqrt(e^2 + d^2) - d)
with d = 0.1 and |e|. min-SNR-gamma weights it by b^2 min(SNR, gamma) (Hang et al. 2023), b the
model's scale from y to the denoised picture: that is min(SNR, g)/SNR for eps and min(SNR, g)/(SNR +
1) for v, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ...host.comfy_types import Conditions

HUBER = 0.1  # where squares turn into absolute values
LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "l2": torch.square,
    "huber": lambda error: 2 * HUBER * ((error.square() + HUBER**2).sqrt() - HUBER),
    "l1": torch.abs,
}

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser


def task_loss(
    denoiser: Denoiser,
    clean: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    conditions: Conditions,
    *,
    min_snr_gamma: float = 0.0,
    loss: str = "l2",
) -> torch.Tensor:
    """The formula above, a scalar; gamma 0 for no weights.

    Shapes: clean and noise (B, C, H, W) in the model's scale, sigma (B,).
    """
    noisy = denoiser.noised(clean, noise, sigma)
    error = denoiser.output(noisy, sigma, conditions) - denoiser.target(clean, noisy, sigma)
    each = LOSSES[loss](error).flatten(1).mean(dim=1)
    if min_snr_gamma:
        each = (
            each
            * denoiser.output_scale(sigma).square()
            * denoiser.snr(sigma).clamp(max=min_snr_gamma)
        )
    return each.mean()
