"""Small seeded text encoders of ComfyUI's own classes, and the zoo's models that read them."""

import comfy.sd
import comfy.text_encoders.sd3_clip as sd3
import torch
from comfy import sd1_clip, sdxl_clip
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import ClipTarget
from modular_safety_lora.lab import assets, zoo
from modular_safety_lora.lab.zoo.twin import WIDTH
from modular_safety_lora.lab.zoo.unets import SIZES

FIRST, SECOND = 24, 40  # widths of SDXL's two
TEXT, POOLED = 4096, WIDTH + 1280  # what the host's text encoder of SD3 gives without G and T5
SD3 = {
    "adm_in_channels": POOLED,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": TEXT, "out_features": 128},
    },
}
SHAPES = {  # by twin: the host's classes, widths of the encoders, and sizes of the network
    "SD15": (sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel, {"clip_l": WIDTH}, {}),
    "SDXL": (
        sdxl_clip.SDXLTokenizer,
        sdxl_clip.SDXLClipModel,
        {"clip_l": FIRST, "clip_g": SECOND},
        {"adm_in_channels": SECOND + SIZES},
    ),
    "SD35": (sd3.SD3Tokenizer, sd3.sd3_clip(clip_g=False, t5=False), {"clip_l": WIDTH}, SD3),
}


class OfT5(sd1_clip.SD1ClipModel):
    """The host's text encoder of one part, as models have it that do not read by CLIP."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        told = {"device": device, "dtype": dtype, "model_options": model_options}
        super().__init__(name="t5xxl", clip_model=sd1_clip.SDClipModel, **told)


def clip(tokenizer: type, model: type, widths: dict[str, int]) -> comfy.sd.CLIP:
    """Text encoders of three layers each, in float32."""
    options = {
        f"{name}_model_config": {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
        }
        for name, width in widths.items()
    }
    made = comfy.sd.CLIP(ClipTarget(tokenizer, model), model_options=options)
    network = made.cond_stage_model.float()
    shapes = {name: value.shape for name, value in network.state_dict().items() if value.ndim}
    seeded = {name: value.float() for name, value in assets.seeded(shapes, 3).items()}
    network.load_state_dict(seeded, strict=False)
    return made


def pair(key: str, **held: torch.dtype) -> tuple[ModelPatcher, comfy.sd.CLIP]:
    """(MODEL, CLIP) that fit."""
    tokenizer, model, widths, sizes = SHAPES[key]
    return zoo.build(key, sizes=sizes, **held), clip(tokenizer, model, widths)
