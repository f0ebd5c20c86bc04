"""The shape of a family's latents, as ComfyUI's latent format says it."""

import torch
from comfy.latent_formats import LatentFormat


def pixels_of(space: LatentFormat) -> int:
    """The pixels that a latent stands for, on a side."""
    return getattr(space, "spacial_downscale_ratio", 8)


def dimensions_of(space: LatentFormat) -> int:
    """The dimensions behind the channels: 2 for pictures, 3 for videos."""
    return getattr(space, "latent_dimensions", 2)


def empty_latents(space: LatentFormat, height: int, width: int) -> torch.Tensor:
    """Zero latents (1, C, h, w) of one picture, or (1, C, 1, h, w); sides in latents."""
    frames = [1] * (dimensions_of(space) - 2)
    return torch.zeros(1, space.latent_channels, *frames, height, width)
