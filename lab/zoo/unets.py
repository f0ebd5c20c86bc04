"""The families before the transformers: UNets, and Stable Cascade."""

from .. import assets
from .family import CLIP, FOUR, WIDTH, Family

SIZES = 6 * 256  # numbers that SDXL is told of a picture's sizes, beside the pooled text

ROWS = [
    Family(
        "SD15",
        "Stable Diffusion 1.5",
        "SD15",
        {**assets.UNET, "model_channels": 32, "context_dim": WIDTH},
        **FOUR,
        text=CLIP,
    ),
    Family(
        "SD20",
        "Stable Diffusion 2",
        "SD20",
        {
            **assets.UNET,
            "model_channels": 128,
            "context_dim": WIDTH,
            "use_linear_in_transformer": True,
        },
        **FOUR,
        text=CLIP,
    ),
    Family(
        "SDXL",
        "Stable Diffusion XL",
        "SDXL",
        {
            **assets.UNET,
            "model_channels": 64,
            "channel_mult": [1, 2],
            "transformer_depth": [0, 2],
            "transformer_depth_output": [0, 0, 2, 2],
            "transformer_depth_middle": 2,
            "context_dim": WIDTH,
            "use_linear_in_transformer": True,
            "num_classes": "sequential",
            "adm_in_channels": WIDTH + SIZES,
        },
        **FOUR,
        text=CLIP,
    ),
    Family(
        "Stable_Cascade_C",
        "Stable Cascade, stage C",
        "Stable_Cascade_C",
        {
            "stable_cascade_stage": "c",
            "c_cond": 64,
            "c_hidden": [64, 64],
            "nhead": [2, 2],
            "blocks": [[1, 1], [1, 1]],
            "c_clip_text": WIDTH,
            "c_clip_text_pooled": WIDTH,
        },
        text=CLIP,
    ),
]
