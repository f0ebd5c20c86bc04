"""Pictures that the model itself half-made: what ESD and SDD are trained on, in place of data.

Deterministic DDIM, which in the host's scale of sigma is Euler's step, with classifier-free
guidance:

    x <- x + (x - D(x)) / sigma * (sigma_next - sigma),   D = D_null + g (D_c - D_null)
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from .method import Conditions, Moment

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser
    from ..settings import Erasure


@torch.no_grad()
def half_made(
    denoiser: Denoiser,
    noise: torch.Tensor,
    concept: Conditions,
    null: Conditions,
    erasure: Erasure,
    *,
    generator: torch.Generator,
) -> Moment:
    """A picture of the concept, denoised from `noise` (B, C, ...) by the model as it is.

    It is denoised up to a random step.
    """
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(
        denoiser.sampling, "normal", erasure.sampling_steps
    ).to(noise.device)
    stop = int(torch.randint(len(sigmas) - 1, (1,), generator=generator))
    noisy = denoiser.sampling.noise_scaling(sigmas[0], noise.clone(), torch.zeros_like(noise), True)
    batch = torch.ones(len(noise), device=noise.device)
    for now, following in itertools.pairwise(sigmas[: stop + 1]):
        denoised = denoiser.denoised(noisy, now * batch, concept)
        if erasure.guidance != 1.0:
            unguided = denoiser.denoised(noisy, now * batch, null)
            denoised = unguided + erasure.guidance * (denoised - unguided)
        noisy = noisy + (noisy - denoised) / now * (following - now)
    return Moment(noisy, sigmas[stop] * batch, concept, null)
