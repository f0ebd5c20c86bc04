"""diffusers' models of the sizes of the zoo's, for each family whose trained files it reads."""

from dataclasses import dataclass, field

HEADS = {"num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2}
FLUX = {
    **HEADS,
    "num_single_layers": 2,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}
SD3 = {
    **HEADS,
    "attention_head_dim": 64,
    "sample_size": 16,
    "joint_attention_dim": 64,
    "caption_projection_dim": 128,
    "pooled_projection_dim": 64,
    "pos_embed_max_size": 16,
    "qk_norm": "rms_norm",
}
WAN = {**HEADS, "text_dim": 64, "ffn_dim": 128}


@dataclass(frozen=True)
class Diffusers:
    """A family of the zoo, or one with another config, and diffusers' model of the same sizes."""

    zoo: str
    pipeline: str
    transformer: str
    sizes: dict
    config: str = ""
    unet: dict = field(default_factory=dict)


MODELS = {
    "Flux": Diffusers("Flux", "Flux", "Flux", {**FLUX, "guidance_embeds": True}),
    "FluxSchnell": Diffusers("FluxSchnell", "Flux", "Flux", FLUX),
    "FluxInpaint": Diffusers(
        "Flux",
        "FluxFill",
        "Flux",
        {**FLUX, "guidance_embeds": True, "in_channels": 384, "out_channels": 64},
        "FluxInpaint",
        {"in_channels": 96},
    ),
    "SD3": Diffusers("SD3", "StableDiffusion3", "SD3", SD3),
    "SD35": Diffusers("SD35", "StableDiffusion3", "SD3", {**SD3, "dual_attention_layers": (0,)}),
    "QwenImage": Diffusers(
        "QwenImage",
        "QwenImage",
        "QwenImage",
        {**HEADS, "joint_attention_dim": 64, "axes_dims_rope": (8, 12, 12)},
    ),
    "WAN21_T2V": Diffusers("WAN21_T2V", "Wan", "Wan", WAN),
    "WAN21_I2V": Diffusers(
        "WAN21_T2V",
        "WanImageToVideo",
        "Wan",
        {**WAN, "in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 64},
        "WAN21_I2V",
        {"model_type": "i2v", "in_dim": 36},
    ),
    "WAN22_T2V": Diffusers(
        "WAN22_T2V", "Wan", "Wan", {**WAN, "in_channels": 48, "out_channels": 48}
    ),
    "ZImage": Diffusers(
        "ZImage",
        "ZImage",
        "ZImage",
        {
            "dim": 384,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 12,
            "n_kv_heads": 12,
            "cap_feat_dim": 64,
            "axes_dims": (8, 12, 12),
        },
        unet={"dim": 384, "n_heads": 12, "n_kv_heads": 12},  # both tools make the same MLP of it
    ),
}
