"""The transformers that make videos, and picture models of the same classes."""

import comfy.ldm.anima.model
import torch

from . import roles
from .twin import BOTH, HEAD, PADDED, WIDTH, Draw, Text, Twin, mask, video

WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 64,
    "ffn_dim": 128,
    "text_dim": WIDTH,
    "num_heads": 2,
    "num_layers": 2,
}
KANDINSKY = {
    "image_model": "kandinsky5",
    "model_dim": 64,
    "ff_dim": 128,
    "time_dim": 64,
    "in_text_dim": WIDTH,
    "in_text_dim2": WIDTH,
    "num_text_blocks": 2,
    "num_visual_blocks": 2,
    "axes_dims": HEAD,
}
COSMOS = {
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 64,
    "num_blocks": 2,
    "num_heads": 2,
    "crossattn_emb_channels": WIDTH,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_enable_fps_modulation": False,
}


def two_tokenizers(draw: Draw, tokens: int) -> dict:
    """Anima: the prompt's tokens of a second tokenizer, with their weights."""
    numbers = draw(tokens).mul(1000).abs().int()
    return {
        "attention_mask": mask(tokens),
        "t5xxl_ids": numbers,
        "t5xxl_weights": torch.ones(tokens),
    }


def small_adapter(network: torch.nn.Module, operations: type) -> None:
    """Make Anima's text adapter again, smaller: its class fixes 133 million weights in the host."""
    network.llm_adapter = comfy.ldm.anima.model.LLMAdapter(
        source_dim=WIDTH,
        target_dim=WIDTH,
        model_dim=WIDTH,
        num_layers=2,
        num_heads=2,
        dtype=network.dtype,
        operations=operations,
    )


ROWS = [
    video(
        "WAN21_T2V",
        roles.WAN,
        WAN,
    ),
    video(
        "WAN22_T2V",
        roles.WAN,
        {**WAN, "in_dim": 48, "out_dim": 48},
        latent=(48, 1, 4, 4),
        wide=(48, 1, 4, 6),
    ),
    video(
        "LTXV",
        roles.UNET,
        {
            "image_model": "ltxv",
            "num_layers": 2,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "cross_attention_dim": 64,
            "caption_channels": WIDTH,
        },
        latent=(128, 1, 4, 4),
        wide=(128, 1, 4, 6),
        text=PADDED,
        writes_over=True,
    ),
    video(
        "Kandinsky5",
        roles.KANDINSKY,
        KANDINSKY,
        text=BOTH,
    ),
    Twin(
        "Kandinsky5Image",
        roles.KANDINSKY,
        {**KANDINSKY, "visual_embed_dim": 64, "rope_scale_factor": (1.0, 1.0, 1.0)},
        text=BOTH,
        found="Kandinsky5",
    ),
    video(
        "CosmosT2IPredict2",
        roles.COSMOS,
        {**COSMOS, "image_model": "cosmos_predict2"},
        text=PADDED,
        trains=False,
    ),
    video(
        "Anima",
        roles.COSMOS,
        {**COSMOS, "image_model": "anima"},
        text=Text(extra=two_tokenizers),
        trains=False,
        adjust=small_adapter,
    ),
]
