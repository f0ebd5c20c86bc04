"""What the tests of training on held weights give the zoo's SD1.5 and SD3.5.

The dtypes that the weights are held in, texts and pictures.
"""

import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.lab.zoo.twin import WIDTH
from modular_safety_lora.training import data

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
