"""Pictures that the model itself half-made: what concepts are erased on, in place of data."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from ...host.comfy_types import Conditions
from .method import ErasureBase, Moment

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser


@torch.no_grad()
def half_denoised(
    denoiser: Denoiser,
    noise: torch.Tensor,
    concept: Conditions,
    null: Conditions,
    erasure: ErasureBase,
    *,
    generator: torch.Generator,
) -> Moment:
    """The concept's picture, denoised from `noise` (B, C, ...) to a random step."""
    import comfy.samplers

    from ...host.sampling import guided_step

    sigmas = comfy.samplers.calculate_sigmas(
        denoiser.sampling, "normal", erasure.sampling_steps
    ).to(noise.device)
    stop = int(torch.randint(len(sigmas) - 1, (1,), generator=generator))
    noisy = denoiser.sampling.noise_scaling(sigmas[0], noise.clone(), torch.zeros_like(noise), True)
    for now, following in itertools.pairwise(sigmas[: stop + 1]):
        noisy = guided_step(denoiser, noisy, (now, following), (concept, null), erasure.guidance)
    batch = torch.ones(len(noise), device=noise.device)
    return Moment(noisy, sigmas[stop] * batch, concept, null)
