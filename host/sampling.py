"""One picture by ComfyUI's own sampler, from a conditioning and a seed."""

from dataclasses import replace
from pathlib import Path

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

# What suits a family, by the class of the model's config: as ComfyUI's own templates sample it.
# Guidance 1 is none: these were distilled to do without, and pictures burn with more. ComfyUI has
# Krea 2's Turbo alone.
SUITS = {
    **dict.fromkeys(("SD20", "SD15"), Sampling(20, 7.0)),
    **dict.fromkeys(("SDXL", "SDXLRefiner"), Sampling(25, 7.0)),
    "Stable_Cascade_C": Sampling(20, 4.0, scheduler="simple"),
    "SD3": Sampling(20, 4.0, scheduler="sgm_uniform"),
    **dict.fromkeys(("Flux", "FluxInpaint", "Flux2"), Sampling(20, 1.0, scheduler="simple")),
    "FluxSchnell": Sampling(4, 1.0, scheduler="simple"),
    "Chroma": Sampling(26, 3.5, scheduler="beta"),
    "QwenImage": Sampling(20, 2.5, scheduler="simple"),
    "ZImage": Sampling(25, 4.0, "res_multistep", "simple"),
    "Lumina2": Sampling(30, 4.0, "res_multistep", "simple"),
    "HiDream": Sampling(50, 5.0, "uni_pc", "simple"),
    "HunyuanVideo": Sampling(20, 1.0, scheduler="simple"),
    **dict.fromkeys(("WAN21_I2V", "WAN22_T2V"), Sampling(20, 6.0, "uni_pc", "simple")),
    "WAN21_T2V": Sampling(30, 6.0, "uni_pc", "simple"),
    "LTXV": Sampling(30, 3.0, scheduler="simple"),
    "Kandinsky5": Sampling(50, 5.0, "euler_ancestral", "beta"),
    "Kandinsky5Image": Sampling(50, 3.5, scheduler="simple"),
    "Krea2": Sampling(8, 1.0, scheduler="simple"),
    "Anima": Sampling(30, 4.0, scheduler="simple"),
}
OTHERS = Sampling(20, 4.0, scheduler="simple")
# Distilled models of a family, whose weights have the names and shapes of their base's: only the
# name of the file tells them apart. Modules are trained on a base, so that is what others are.
DISTILLED = {"ZImage": ("turbo", Sampling(8, 1.0, "res_multistep", "simple"))}

# The side of the pictures that a family was trained on, in pixels, where it is not 1024.
SIDES = {
    **dict.fromkeys(("SD15", "SD20", "DeepFloyd_IF"), 512),
    **dict.fromkeys(("HunyuanVideo", "WAN21_I2V", "WAN21_T2V", "WAN22_T2V", "LTXV"), 640),
    **dict.fromkeys(("GenmoMochi", "CosmosT2V", "CosmosI2V", "Kandinsky5"), 640),
}


def suits(family: str, file: str = "") -> Sampling:
    """How a family is sampled, by the class of its config; `file` is its diffusion model's name."""
    word, distilled = DISTILLED.get(family, ("", None))
    if distilled and word in file.lower():
        return distilled
    return SUITS.get(family, OTHERS)


def suiting(model: ModelPatcher, steps: int = 0, guidance: float = 0.0) -> Sampling:
    """How a ComfyUI MODEL is sampled, with other steps or another guidance if given."""
    made_by = model.cached_patcher_init  # by ComfyUI's loader: a function, and what it was given
    path = made_by[1][0] if made_by and made_by[1] else ""
    file = Path(path).name if isinstance(path, str) else ""
    found = suits(type(model.model.model_config).__name__, file)
    return replace(found, steps=steps or found.steps, guidance=guidance or found.guidance)


def native_side(model: ModelPatcher) -> int:
    """The side, in pixels, of the pictures that a MODEL's family was trained on."""
    return SIDES.get(type(model.model.model_config).__name__, 1024)


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


def out_of_memory(error: Exception) -> bool:
    """Whether an error is a GPU's or the CPU allocator's want of memory."""
    return comfy.model_management.is_oom(error) or "can't allocate memory" in str(error)


def as_picture(picture: torch.Tensor) -> Image.Image:
    """A ComfyUI picture (H, W, 3), float 0..1, for PIL."""
    return Image.fromarray((picture.clamp(0, 1).numpy(force=True) * 255).round().astype(np.uint8))
