"""Transformers in which the text has a stream of layers of its own beside the picture's."""

from . import roles
from .twin import BOTH, FOUR, HEAD, MASKED, WIDTH, Draw, Text, Twin, video

SD3 = {
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
}
STREAMS = {  # two streams that become one
    "context_in_dim": WIDTH,
    "vec_in_dim": WIDTH,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": HEAD,
    "theta": 10000,
    "qkv_bias": True,
}
FLUX = {
    **STREAMS,
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "txt_ids_dims": [],
}
LLAMA_LAYERS = 4  # whose states HiDream reads, one for each block


def llama(draw: Draw, tokens: int) -> dict:
    """HiDream: the states of every layer of a language model."""
    return {"conditioning_llama3": draw(1, LLAMA_LAYERS, tokens, WIDTH)}


ROWS = [
    Twin(
        "SD3",
        roles.MMDIT,
        {**SD3, "x_block_self_attn_layers": []},
        text=BOTH,
    ),
    Twin(
        "SD35",
        roles.MMDIT,
        {**SD3, "x_block_self_attn_layers": [0]},
        text=BOTH,
        config="SD3",
        title="Stable Diffusion 3.5 medium",
    ),
    Twin(
        "Flux",
        roles.STREAMS,
        {**FLUX, "guidance_embed": True},
        text=BOTH,
        writes_over=True,
    ),
    Twin(
        "FluxSchnell",
        roles.STREAMS,
        {**FLUX, "guidance_embed": False},
        text=BOTH,
    ),
    Twin(
        "Flux2",
        roles.STREAMS,
        {
            **STREAMS,
            "image_model": "flux2",
            "in_channels": 128,
            "out_channels": 128,
            "patch_size": 1,
            "vec_in_dim": None,
            "mlp_ratio": 3.0,
            "axes_dim": [8, 8, 8, 8],
            "theta": 2000,
            "qkv_bias": False,
            "guidance_embed": True,
            "txt_ids_dims": [3],
            "global_modulation": True,
            "mlp_silu_act": True,
            "ops_bias": False,
            "default_ref_method": "index",
            "ref_index_scale": 10.0,
        },
        latent=(128, 4, 4),
        wide=(128, 4, 6),
        text=MASKED,
        writes_over=True,
    ),
    Twin(
        "Chroma",
        roles.STREAMS,
        {
            **STREAMS,
            "image_model": "chroma",
            "in_channels": 64,
            "out_channels": 64,
            "patch_size": 2,
            "vec_in_dim": None,
            "txt_ids_dims": [],
            "in_dim": 64,
            "out_dim": 64,
            "hidden_dim": 64,
            "n_layers": 2,
        },
        writes_over=True,
    ),
    video(
        "HunyuanVideo",
        roles.HUNYUAN_VIDEO,
        {
            **STREAMS,
            "image_model": "hunyuan_video",
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": [1, 2, 2],
            "theta": 256,
            "guidance_embed": True,
            "byt5": False,
            "meanflow": False,
            "use_cond_type_embedding": False,
            "vision_in_dim": None,
            "meanflow_sum": False,
        },
        text=BOTH,
        writes_over=True,
    ),
    video(
        "QwenImage",
        roles.QWEN,
        {
            "image_model": "qwen_image",
            "in_channels": 64,
            "num_layers": 2,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": HEAD,
        },
    ),
    Twin(
        "HiDream",
        roles.HIDREAM,
        {
            "image_model": "hidream",
            "attention_head_dim": 32,
            "axes_dims_rope": [16, 8, 8],
            "caption_channels": [WIDTH, WIDTH],
            "max_resolution": [16, 16],
            "in_channels": 16,
            "llama_layers": list(range(LLAMA_LAYERS)),
            "num_attention_heads": 2,
            "num_layers": 2,
            "num_single_layers": 2,
            "out_channels": 16,
            "patch_size": 2,
            "text_emb_dim": WIDTH,
        },
        text=Text(pooled=WIDTH, fixed=128, extra=llama),
    ),
    Twin(
        "AuraFlow",
        roles.AURA_FLOW,
        {
            "dim": 64,
            "n_layers": 4,
            "n_double_layers": 2,
            "n_heads": 2,
            "global_conddim": 64,
            "cond_seq_dim": WIDTH,
            "max_seq": 256,
        },
        **FOUR,
        found=None,
    ),
]
