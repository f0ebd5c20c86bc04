"""One picture by ComfyUI's own sampler, from a conditioning and a seed."""

from dataclasses import dataclass, replace

import comfy.model_management
import comfy.sample
import comfy.samplers
import numpy as np
import torch
from PIL import Image

from ..modules.choices import chosen
from .denoiser import Conditioning
from .latents import empty_latents, pixels_of


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Raises ChoiceError for a sampler or scheduler that there is not: ComfyUI would take its first.
    """

    steps: int = 20
    guidance: float = 7.0
    sampler: str = "euler"
    scheduler: str = "normal"

    def __post_init__(self):
        chosen(self.sampler, comfy.samplers.KSampler.SAMPLERS, "sampler")
        chosen(self.scheduler, comfy.samplers.KSampler.SCHEDULERS, "scheduler")


# what suits a family, by the class of the model's config: as ComfyUI's own templates sample it.
# Guidance 1 is none: these were distilled to do without, and pictures burn with more. Z-Image is
# taken for Turbo, Krea 2 too.
SUITS = {
    **dict.fromkeys(("SD20", "SD15", "SDXL", "SDXLRefiner"), Sampling(20, 7.0)),
    "Stable_Cascade_C": Sampling(20, 4.0, scheduler="simple"),
    "SD3": Sampling(20, 4.0, scheduler="sgm_uniform"),
    **dict.fromkeys(("Flux", "FluxInpaint", "Flux2"), Sampling(20, 1.0, scheduler="simple")),
    "FluxSchnell": Sampling(4, 1.0, scheduler="simple"),
    "Chroma": Sampling(26, 3.5, scheduler="beta"),
    "QwenImage": Sampling(20, 2.5, scheduler="simple"),
    "ZImage": Sampling(8, 1.0, "res_multistep", "simple"),
    "Lumina2": Sampling(30, 4.0, "res_multistep", "simple"),
    "HiDream": Sampling(50, 5.0, "uni_pc", "simple"),
    "HunyuanVideo": Sampling(20, 1.0, scheduler="simple"),
    **dict.fromkeys(("WAN21_T2V", "WAN21_I2V", "WAN22_T2V"), Sampling(20, 6.0, "uni_pc", "simple")),
    "LTXV": Sampling(30, 3.0, scheduler="simple"),
    "Kandinsky5": Sampling(50, 5.0, "euler_ancestral", "beta"),
    "Kandinsky5Image": Sampling(50, 3.5, scheduler="simple"),
    "Krea2": Sampling(8, 1.0, scheduler="simple"),
    "Anima": Sampling(30, 4.0, scheduler="simple"),
}
OTHERS = Sampling(20, 4.0, scheduler="simple")


def suiting(model, steps: int = 0, guidance: float = 0.0) -> Sampling:
    """How a ComfyUI MODEL's family is sampled, with other steps or another guidance if given."""
    found = SUITS.get(type(model.model.model_config).__name__, OTHERS)
    return replace(found, steps=steps or found.steps, guidance=guidance or found.guidance)


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
    samples = comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=seed)
    decoded = vae.decode(samples)
    return decoded.reshape(-1, *decoded.shape[-3:])[0].float().cpu()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error is a GPU's or the CPU allocator's want of memory."""
    return comfy.model_management.is_oom(error) or "can't allocate memory" in str(error)


def as_picture(picture: torch.Tensor) -> Image.Image:
    """A ComfyUI picture (H, W, 3), float 0..1, for PIL."""
    return Image.fromarray((picture.clamp(0, 1).numpy(force=True) * 255).round().astype(np.uint8))
