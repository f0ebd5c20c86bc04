"""One picture by ComfyUI's own sampler, from a conditioning and a seed."""

from dataclasses import dataclass

import comfy.model_management
import comfy.sample
import numpy as np
import torch
from PIL import Image

from .denoiser import Conditioning


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled."""

    steps: int = 20
    guidance: float = 7.0
    sampler: str = "euler"
    scheduler: str = "normal"


def make_picture(
    model,
    vae,
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
    width, height = size
    space = model.model.latent_format
    ratio = getattr(space, "spacial_downscale_ratio", 8)
    extra = [1] * (getattr(space, "latent_dimensions", 2) - 2)
    latent = torch.zeros(1, space.latent_channels, *extra, height // ratio, width // ratio)
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
    samples = comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=seed)
    decoded = vae.decode(samples)
    return decoded.reshape(-1, *decoded.shape[-3:])[0].float().cpu()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error is a GPU's or the CPU allocator's want of memory."""
    return comfy.model_management.is_oom(error) or "can't allocate memory" in str(error)


def as_picture(picture: torch.Tensor) -> Image.Image:
    """A ComfyUI picture (H, W, 3), float 0..1, for PIL."""
    return Image.fromarray((picture.clamp(0, 1).numpy(force=True) * 255).round().astype(np.uint8))
