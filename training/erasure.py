"""Erasing a concept with a LoRA, without data: ESD (Gandikota et al. 2023) and SDD (Kim et al. 2023).

Both move the prediction for the concept's prompts on pictures that the model itself half-made. The frozen base is the
adapter switched off. All combinations are linear in the model's own output, so they hold for eps, v and velocity alike.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import comfy.samplers
import torch

from ..host.denoiser import Denoiser
from .engine.adapters import Adapters

METHODS = ("esd-x", "esd-u", "sdd")
Conditions = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Erasure:
    """How a concept is erased; the defaults are the papers'."""

    method: str = "esd-x"
    eta: float = 1.0  # ESD: how far past the unconditional output the target lies
    guidance: float = 3.0  # of the pictures that are half-made
    sampling_steps: int = 50
    ema: float = 0.999  # SDD: decay of the teacher that makes the pictures, and is what is saved

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; it must be one of {', '.join(METHODS)}.")
        if self.sampling_steps < 2:
            raise ValueError(f"sampling_steps is {self.sampling_steps}; it must be at least 2.")


def layers_of(method: str, diffusion_model: torch.nn.Module) -> list[str]:
    """ESD-x and SDD train cross-attention (attn2); ESD-u everything but it, the time embedding and the output.

    Models without attn2 (Flux, SD3) attend to text and picture together: there all attention is trained.
    """
    layers = [n for n, m in diffusion_model.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    if method == "esd-u":
        return [
            n for n in layers if "attn2" not in n and not n.startswith(("time_embed", "label_emb", "out.", "final_layer"))
        ]
    return [n for n in layers if "attn2" in n] or [n for n in layers if "attn" in n]


def esd_loss(
    denoiser: Denoiser,
    adapters: Adapters,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    concept: Conditions,
    null: Conditions,
    eta: float,
) -> torch.Tensor:
    """|| y(x_t, c) - ( y0(x_t, null) - eta (y0(x_t, c) - y0(x_t, null)) ) ||^2, y0 the frozen base (ESD, eq. 7)."""
    with torch.no_grad(), adapters.switched_off():
        base_null = denoiser.output(noisy, sigma, null)
        target = base_null - eta * (denoiser.output(noisy, sigma, concept) - base_null)
    return (denoiser.output(noisy, sigma, concept) - target).square().mean()


def sdd_loss(
    denoiser: Denoiser, noisy: torch.Tensor, sigma: torch.Tensor, concept: Conditions, null: Conditions
) -> torch.Tensor:
    """|| y(z_t, c) - stopgrad y(z_t, null) ||^2: the target is the student's own unconditional output (SDD, eq. 4)."""
    with torch.no_grad():
        target = denoiser.output(noisy, sigma, null)
    return (denoiser.output(noisy, sigma, concept) - target).square().mean()


def retain_loss(
    denoiser: Denoiser, adapters: Adapters, noisy: torch.Tensor, sigma: torch.Tensor, other: Conditions
) -> torch.Tensor:
    """|| y(x_t, r) - y0(x_t, r) ||^2: another concept stays what it was."""
    with torch.no_grad(), adapters.switched_off():
        target = denoiser.output(noisy, sigma, other)
    return (denoiser.output(noisy, sigma, other) - target).square().mean()


@torch.no_grad()
def half_made(
    denoiser: Denoiser,
    noise: torch.Tensor,
    concept: Conditions,
    null: Conditions,
    erasure: Erasure,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of the concept, denoised from `noise` by the model as it is up to a random step: x_t and sigma (B,).

    Deterministic DDIM, which in the host's scale of sigma is Euler's step, with classifier-free guidance.
    """
    sigmas = comfy.samplers.calculate_sigmas(denoiser.sampling, "normal", erasure.sampling_steps).to(noise.device)
    stop = int(torch.randint(len(sigmas) - 1, (1,), generator=generator))
    noisy = denoiser.sampling.noise_scaling(sigmas[0], noise.clone(), torch.zeros_like(noise), True)
    batch = torch.ones(len(noise), device=noise.device)
    for now, following in itertools.pairwise(sigmas[: stop + 1]):
        unguided = denoiser.denoised(noisy, now * batch, null)
        denoised = unguided + erasure.guidance * (denoiser.denoised(noisy, now * batch, concept) - unguided)
        noisy = noisy + (noisy - denoised) / now * (following - now)
    return noisy, sigmas[stop] * batch
