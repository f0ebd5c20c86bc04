"""Small seeded models of ComfyUI's own classes: a UNet and a DiT that step in milliseconds.

Their weights are held as asked.
"""

import comfy.model_management
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.lab import assets
from modular_safety_lora.training import data

HELD = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
WIDTH = 64  # of a token of text, and of the pooled text
FAMILIES = {
    "SD15": {**assets.UNET, "model_channels": 32, "context_dim": WIDTH},
    "SD3": {
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "depth": 2,
        "input_size": None,
        "adm_in_channels": WIDTH,
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": WIDTH, "out_features": 128},
        },
        "num_patches": 256,
        "pos_embed_max_size": 16,
        "qk_norm": "rms",
        "pos_embed_scaling_factor": None,
        "x_block_self_attn_layers": [0],
    },
}


def small_model(
    family: str,
    held: torch.dtype = torch.float32,
    values: torch.dtype | None = None,
    cast: torch.dtype | None = torch.float32,
) -> ModelPatcher:
    """A MODEL of one of the FAMILIES, held in a dtype and cast to `cast` where it computes.

    `values` rounds the weights to another dtype first: held in float32 with the values of bf16, it
    is the function that a model held in bf16 computes. Without `cast` it computes in what it holds,
    as on a GPU.
    """
    config = getattr(comfy.supported_models, family)({**FAMILIES[family]})
    config.set_inference_dtype(held, None if held == cast else cast)
    model = config.get_model({}, "", torch.device("cpu"))
    network = model.diffusion_model
    weights = assets.seeded({name: value.shape for name, value in network.state_dict().items()}, 1)
    network.load_state_dict(
        {name: value.to(values or held).to(held) for name, value in weights.items()}
    )
    return ModelPatcher(model, torch.device("cpu"), comfy.model_management.unet_offload_device())


def conditionings(count: int, seed: int = 1) -> list:
    """Seeded CONDITIONING entries of one prompt each, as of a text encoder of the small width."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(2, 7, WIDTH, generator=generator) for _ in range(count)]
    return [[[each[:1], {"pooled_output": each[1, :1]}]] for each in drawn]


def dataset(model: ModelPatcher) -> data.Dataset:
    """Four captioned latents of the model, in two sizes."""
    channels = model.model.latent_format.latent_channels
    generator = torch.Generator().manual_seed(1)
    latents = [
        torch.randn(1, channels, *size, generator=generator)
        for size in [(8, 8)] * 2 + [(8, 16)] * 2
    ]
    return data.Dataset(latents, conditionings(4), [[0, 1], [2, 3]], "digest")
