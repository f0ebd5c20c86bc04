"""The diffusion model: SD3's transformer, small, as ComfyUI's own class.

SD1.5's UNet can't be small and be loaded by ComfyUI's checkpoint loader, which knows it by its 320
channels; with those and latents of four channels it was too slow and too blurred (README.md).
SD3's transformer is known by its joint blocks, at any width of 64 times its depth.
"""

from torch import nn

from ...emoji.network import DEPTH, LATENT, PLACES, READ, WIDTH, places

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
