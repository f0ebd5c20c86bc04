"""The task's own loss: denoising, in the model's own output y (see Denoiser).

    || y(x_t, c) - y* ||^2

or the pseudo-Huber loss or the absolute value of the same difference e, 2 d (sqrt(e^2 + d^2) - d)
with d = 0.1 and |e|. min-SNR-gamma weights it by b^2 min(SNR, gamma) (Hang et al. 2023), b the
model's scale from y to the denoised picture: that is min(SNR, g)/SNR for eps and min(SNR, g)/(SNR +
1) for v, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

HUBER = 0.1  # where squares turn into absolute values
LOSSES = {
    "l2": torch.square,
    "huber": lambda error: 2 * HUBER * ((error.square() + HUBER**2).sqrt() - HUBER),
    "l1": torch.abs,
}

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser
    from ..data import Dataset
    from ..engine.loop import Batch
    from ..settings import Settings


def task_loss(
    denoiser: Denoiser,
    clean: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    conditions: dict[str, torch.Tensor],
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


@dataclass(frozen=True)
class Drawn:
    """Some pictures of a dataset with their noise: clean and noise (B, C, H, W), sigma (B,)."""

    clean: torch.Tensor
    noise: torch.Tensor
    sigma: torch.Tensor


@dataclass(frozen=True)
class Denoising:
    """The task's loss on the pictures of one dataset."""

    denoiser: Denoiser
    dataset: Dataset
    settings: Settings

    def __post_init__(self):
        for each in self.dataset.latents:  # before the first step, not when one is drawn
            self.denoiser.as_latents(each)

    def drawn(self, pictures: Sequence[int], batch: Batch) -> Drawn:
        """Clean latents, noise and noise levels of this process's pictures."""
        clean = self.denoiser.latents_in(
            torch.cat([self.dataset.latents[number] for number in pictures])
        )
        noise = batch.normal(clean.shape[1:])
        offset = batch.normal([clean.shape[1], *[1] * (clean.ndim - 2)])
        noise = (noise + self.settings.noise_offset * offset).to(clean.device)
        return Drawn(
            clean, noise, batch.share.of(self.denoiser.sigmas(len(batch.pictures), batch.noise))
        )

    def loss(self, pictures: Sequence[int], drawn: Drawn) -> torch.Tensor:
        conditions = self.denoiser.conditions(
            [self.dataset.conditions[number] for number in pictures], drawn.clean
        )
        how = {"min_snr_gamma": self.settings.min_snr_gamma, "loss": self.settings.loss}
        return task_loss(self.denoiser, drawn.clean, drawn.noise, drawn.sigma, conditions, **how)
