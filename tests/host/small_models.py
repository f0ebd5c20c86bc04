"""What the tests of training on held weights give the zoo's SD1.5 and SD3.5.

The dtypes that the weights are held in, texts and pictures; and the small checkpoint in parts.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.zoo.twin import WIDTH
from modular_safety_lora.training import data
from safetensors.torch import load_file, save_file

PREFIXES = ("model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model.")
HELD = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def conditionings(count: int, seed: int = 1) -> list:
    """Seeded CONDITIONING entries of one prompt each, of seven tokens for both models."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(2, 7, WIDTH, generator=generator) for _ in range(count)]
    return [[[each[:1], {"pooled_output": each[1, :1]}]] for each in drawn]


def dataset(model: ModelPatcher) -> data.Dataset:
    """Four captioned latents of the model, in two sizes."""
    channels = model.model.latent_format.latent_channels
    generator = torch.Generator().manual_seed(1)
    latents = [
        torch.randn(1, channels, *size, generator=generator) for size in [(4, 4)] * 2 + [(4, 8)] * 2
    ]
    return data.Dataset(latents, conditionings(4), [[0, 1], [2, 3]], "digest")


def split(models: Path, folder: Path, names: Iterable[str]) -> list[Path]:
    """The small checkpoint's network, text encoder and VAE as files of these names."""
    weights, files = load_file(models / "checkpoints" / assets.CHECKPOINT), []
    for name, prefix in zip(names, PREFIXES, strict=True):
        part = {key: value for key, value in weights.items() if key.startswith(prefix)}
        files.append(folder / f"{name}.safetensors")
        save_file({key.removeprefix(prefix): each for key, each in part.items()}, files[-1])
    return files


def in_parts(files: Iterable[Path]) -> list[str]:
    """The arguments of a verb that name them as its base."""
    named = ("--diffusion-model", "--text-encoder", "--vae")
    return [str(word) for pair in zip(named, files, strict=True) for word in pair]
