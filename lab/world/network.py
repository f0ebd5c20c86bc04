"""The diffusion model: SD3's transformer, small, as ComfyUI's own class.

SD1.5's UNet can't be small and be loaded by ComfyUI's checkpoint loader, which knows it by its 320
channels; with those and latents of four channels it was too slow and too blurred (README.md).
SD3's transformer is known by its joint blocks, at any width of 64 times its depth.
"""

import torch
from torch import nn

DEPTH = 4
WIDTH = 64 * DEPTH
LATENT = 16  # channels
PLACES = 16  # rows and columns that the embedding of places has
TEXT, POOLED = 4096, 2048  # what the host's text encoders of SD3 give
READ = 768  # of both: CLIP-L's part, the rest is zero
SHAPE = {
    "input_size": None,
    "patch_size": 2,
    "in_channels": LATENT,
    "out_channels": LATENT,
    "depth": DEPTH,
    "adm_in_channels": READ,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": READ, "out_features": WIDTH},
    },
    "num_patches": PLACES**2,
    "pos_embed_max_size": PLACES,
    "pos_embed_scaling_factor": None,
    "qk_norm": "rms",
}
WIDER = {"context_embedder.weight": TEXT, "y_embedder.mlp.0.weight": POOLED}


def bare() -> nn.Module:
    """ComfyUI's class for SD3, initialised as DiT is (Peebles and Xie, arXiv 2212.09748)."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper

    model = OpenAISignatureMMDITWrapper(**SHAPE, operations=comfy.ops.disable_weight_init)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight.view(layer.weight.shape[0], -1))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            if "adaLN_modulation" in name or name == "final_layer.linear":
                nn.init.zeros_(layer.weight)
        elif getattr(layer, "weight", None) is not None:
            nn.init.ones_(layer.weight)
    for embedder in (model.t_embedder.mlp, model.y_embedder.mlp):
        nn.init.normal_(embedder[0].weight, std=0.02)
        nn.init.normal_(embedder[2].weight, std=0.02)
    model.pos_embed.copy_(places())
    return model


def places() -> torch.Tensor:
    """Fixed sines and cosines of rows and columns, (1, PLACES * PLACES, WIDTH)."""
    steps = 1 / 1000 ** (torch.arange(WIDTH // 4) / (WIDTH // 4))
    angles = torch.arange(PLACES)[:, None] * steps
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (PLACES, WIDTH / 2)
    rows = waves[:, None].expand(-1, PLACES, -1)
    columns = waves[None].expand(PLACES, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(1, PLACES**2, WIDTH)


def whole(narrow: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights with the inputs that the host's text encoders fill with zeros."""
    found = dict(narrow)
    for name, inputs in WIDER.items():
        found[name] = nn.functional.pad(narrow[name], (0, inputs - READ))
    return found
