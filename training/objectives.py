"""Training losses, in the model's own output y (see Denoiser): the task's, and the anchor that holds the concept."""

import torch

from ..host.denoiser import Denoiser
from .engine.adapters import Adapters


def task_loss(
    denoiser: Denoiser,
    clean: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    conditions: dict[str, torch.Tensor],
    min_snr_gamma: float | None = None,
) -> torch.Tensor:
    """|| y(x_t, c) - y* ||^2, the denoising loss; min-SNR-gamma weights it by b^2 min(SNR, gamma) (Hang et al. 2023).

    With b the model's scale from y to the denoised picture this is min(SNR, g)/SNR for eps and min(SNR, g)/(SNR + 1) for
    v, as in the paper. Shapes: clean and noise (B, C, H, W) in the model's scale, sigma (B,). Returns a scalar.
    """
    noisy = denoiser.noised(clean, noise, sigma)
    error = denoiser.output(noisy, sigma, conditions) - denoiser.target(clean, noisy, sigma)
    loss = error.square().flatten(1).mean(dim=1)
    if min_snr_gamma is not None:
        loss = loss * denoiser.output_scale(sigma).square() * denoiser.snr(sigma).clamp(max=min_snr_gamma)
    return loss.mean()


def anchor_loss(
    denoiser: Denoiser,
    adapters: Adapters,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    both: dict[str, torch.Tensor],
) -> torch.Tensor:
    """|| [y(x_t, c) - y(x_t, null)] with the task change - the same without it ||^2: the concept stays where safety put it.

    The safety module is in the forward pass, frozen. `both` are the conditions of 2 B pictures: one of its prompts for
    each of the noisy latents (B, C, H, W), then the empty prompt for each.
    """

    size = len(noisy)
    twice = (torch.cat([noisy, noisy]), torch.cat([sigma, sigma]), both)

    def direction() -> torch.Tensor:
        output = denoiser.output(*twice)
        return output[:size] - output[size:]

    with torch.no_grad(), adapters.switched_off():
        held = direction()
    return (direction() - held).square().mean()
