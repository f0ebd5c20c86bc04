"""Which base a LoRA file is for, told by the names and shapes of its tensors."""

import re
from collections.abc import Mapping

import torch

# The width of the text that cross-attention reads tells UNets apart; block names, transformers.
TEXT_WIDTHS = {768: "SD15", 1024: "SD20", 2048: "SDXL"}
CROSS_KEY = re.compile(
    r"attn2[._](to_k|to_v)\.(lora_down|lora_A)(\.default)?\.weight$"
    r"|attn2\.processor\.to_k_lora\.down"
)
BLOCKS = {"double_blocks": "Flux", "joint_blocks": "SD3"}


def architecture_of(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The architecture a LoRA is for, as ComfyUI names it; None when its tensors do not tell."""
    for part, base in BLOCKS.items():
        if any(part in key for key in tensors):
            return base
    widths = {
        value.shape[1] for key, value in tensors.items() if CROSS_KEY.search(key) and value.ndim > 1
    }
    return TEXT_WIDTHS.get(widths.pop()) if len(widths) == 1 else None
