"""The families before the transformers: UNets, and Stable Cascade."""

from .. import assets
from . import roles
from .twin import CLIP, FOUR, WIDTH, Twin

SIZES = 6 * 256  # numbers that SDXL is told of a picture's sizes, beside the pooled text

ROWS = [
    Twin(
        "SD15",
        roles.UNET,
        {**assets.UNET, "model_channels": 32, "context_dim": WIDTH},
        **FOUR,
        text=CLIP,
        found=None,
    ),
    Twin(
        "SD20",
        roles.UNET,
        {
            **assets.UNET,
            "model_channels": 128,
            "context_dim": WIDTH,
            "use_linear_in_transformer": True,
        },
        **FOUR,
        text=CLIP,
        found=None,
    ),
    Twin(
        "SDXL",
        roles.UNET,
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
        found=None,
    ),
    Twin(
        "Stable_Cascade_C",
        roles.CASCADE,
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
