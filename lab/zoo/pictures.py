"""Other transformers that make pictures: text and picture in one stream, or cross-attention."""

from . import roles
from .twin import FOUR, HEAD, MASKED, WIDTH, Draw, Text, Twin, mask, video

NEXT_DIT = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "multiple_of": 32,
    "qk_norm": True,
    "cap_feat_dim": WIDTH,
    "axes_dims": HEAD,
}
T5_TOKENS = 16  # of Hunyuan-DiT's second text encoder


def two_encoders(draw: Draw, tokens: int) -> dict:
    """Hunyuan-DiT: the masks of both its text encoders, and what the second one gives."""
    return {
        "attention_mask": mask(77, 77 - tokens),
        "conditioning_mt5xl": draw(1, T5_TOKENS, WIDTH),
        "attention_mask_mt5xl": mask(T5_TOKENS, T5_TOKENS - tokens),
    }


ROWS = [
    Twin(
        "ZImage",
        roles.LUMINA,
        {
            **NEXT_DIT,
            "dim": 256,  # the least that fits its modulation
            "n_heads": 8,
            "n_kv_heads": 8,
            "rope_theta": 256.0,
            "ffn_dim_multiplier": 8.0 / 3.0,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
        },
        text=MASKED,
        found="Lumina2",
    ),
    Twin(
        "Lumina2",
        roles.LUMINA,
        {**NEXT_DIT, "dim": 64, "n_heads": 2, "n_kv_heads": 1},
        text=MASKED,
    ),
    Twin(
        "PixArtSigma",
        roles.PIXART,
        {
            "image_model": "pixart_sigma",
            "hidden_size": 64,
            "depth": 2,
            "num_heads": 2,
            "caption_channels": WIDTH,
            "model_max_length": 300,
            "pe_interpolation": 2,
            "micro_condition": False,
        },
        latent=(4, 36, 36),  # with less the host divides by zero
        wide=(4, 36, 40),
        side=288,
    ),
    Twin(
        "HunyuanDiT",
        roles.HUNYUAN_DIT,
        {
            "image_model": "hydit",
            "hidden_size": 64,
            "depth": 4,
            "num_heads": 2,
            "text_states_dim": WIDTH,
            "text_states_dim_t5": WIDTH,
            "text_len_t5": T5_TOKENS,
        },
        **FOUR,
        text=Text(fixed=77, extra=two_encoders),
    ),
    Twin(
        "Omnigen2",
        roles.OMNIGEN,
        {
            "image_model": "omnigen2",
            "hidden_size": 64,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 32,
            "axes_dim_rope": HEAD,
            "text_feat_dim": WIDTH,
            "timestep_scale": 1000.0,
        },
        text=MASKED,
    ),
    video(
        "Krea2",
        roles.KREA,
        {
            "image_model": "krea2",
            "features": 64,
            "heads": 2,
            "kvheads": 1,
            "layers": 2,
            "txtlayers": 3,
            "txtdim": 32,
            "txtheads": 2,
            "txtkvheads": 2,
        },
        text=Text(width=3 * 32),
    ),
]
