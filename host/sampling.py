"""One picture by ComfyUI's own sampler, from a conditioning and a seed."""

import comfy.model_management
import comfy.sample
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from PIL import Image

from .comfy_types import Conditioning, Conditions
from .denoiser import Denoiser
from .latents import empty_latents, pixels_of
from .sampling_settings import Sampling


def guided_step(
    denoiser: Denoiser,
    noisy: torch.Tensor,
    sigmas: tuple[torch.Tensor, torch.Tensor],
    texts: tuple[Conditions, Conditions],
    guidance: float,
) -> torch.Tensor:
    """x after a step from one noise level to the next, with classifier-free guidance.

    `texts` are the conditions of the prompt and of the empty one. Deterministic DDIM, which in the
    host's scale of sigma is Euler's step:

        x <- x + (x - D(x)) / sigma * (sigma_next - sigma),   D = D_null + g (D_c - D_null)
    """
    (now, following), (concept, null) = sigmas, texts
    batch = now * torch.ones(len(noisy), device=noisy.device)
    denoised = denoiser.denoised(noisy, batch, concept)
    if guidance != 1.0:
        unguided = denoiser.denoised(noisy, batch, null)
        denoised = unguided + guidance * (denoised - unguided)
    return noisy + (noisy - denoised) / now * (following - now)


def make_latents(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    sampling: Sampling,
    *,
    seed: int,
    size: tuple[int, int],
) -> torch.Tensor:
    """The latents that KSampler makes with these inputs; `size` is width and height in pixels."""
    width, height = size
    space = model.model.latent_format
    latent = empty_latents(space, height // pixels_of(space), width // pixels_of(space))
    noise = comfy.sample.prepare_noise(latent, seed)
    arguments = (
        sampling.steps,
        sampling.guidance,
        sampling.sampler,
        sampling.scheduler,
        positive,
        negative,
        latent,
    )
    return comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=seed)


def make_picture(
    model: ModelPatcher,
    vae: VAE,
    positive: Conditioning,
    negative: Conditioning,
    sampling: Sampling,
    *,
    seed: int,
    size: tuple[int, int],
) -> torch.Tensor:
    """The picture that KSampler and VAE Decode make with these inputs.

    `size` is width and height in pixels. The picture is (H, W, 3), float 0..1, on the CPU.
    """
    samples = make_latents(model, positive, negative, sampling, seed=seed, size=size)
    decoded = vae.decode(samples)
    return decoded.reshape(-1, *decoded.shape[-3:])[0].float().cpu()


def out_of_memory(error: Exception) -> bool:
    """Whether an error is a GPU's or the CPU allocator's want of memory."""
    return comfy.model_management.is_oom(error) or "can't allocate memory" in str(error)


def as_picture(picture: torch.Tensor) -> Image.Image:
    """A ComfyUI picture (H, W, 3), float 0..1, for PIL."""
    return Image.fromarray((picture.clamp(0, 1).numpy(force=True) * 255).round().astype(np.uint8))
