"""The sockets of the pack: each carries a list of modules, so that loaders can be chained."""

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

CATEGORY = "safety/modular LoRA"

SafetyLora = io.Custom("MSL_SAFETY_LORA")  # list[Module]
TaskLora = io.Custom("MSL_TASK_LORA")  # list[Task]


def as_image(picture: Image.Image) -> torch.Tensor:
    """A picture as ComfyUI's IMAGE (1, H, W, 3), float 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0)[None]
