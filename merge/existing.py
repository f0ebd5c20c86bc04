"""What was on a weight before the merge, from a LoRA loader or a model merge.

It is a change against W0 like any other.
"""

import comfy.lora
import torch
from comfy.model_patcher import ModelPatcher

from .changes import Change, LowRank, low_rank


def existing_change(patcher: ModelPatcher, key: str, w0: torch.Tensor) -> LowRank | torch.Tensor:
    """What already sits on a weight, against W0: low-rank if it is one plain LoRA, else dense."""
    chain = patcher.patches[key]
    strength, value, strength_model, offset, function = chain[0]
    if len(chain) == 1 and strength_model == 1.0 and not isinstance(value, list | tuple):
        size = low_rank(Change(strength, value, offset, function), w0.device)
        if size is not None:
            return size
    return comfy.lora.calculate_weight(chain, w0.clone(), key) - w0


def summed(parts: list[LowRank | torch.Tensor], w0: torch.Tensor) -> torch.Tensor:
    """Several changes of one weight as one dense tensor of W0's shape."""
    total = torch.zeros_like(w0)
    for part in parts:
        total += (part.up @ part.down).reshape(w0.shape) if isinstance(part, LowRank) else part
    return total
