"""What the audit node's tests share: a picture as a node gets it, and the report in its output."""

import json

import numpy as np
import torch


def to_image(pixels: np.ndarray) -> torch.Tensor:
    """What LoadImage makes of uint8 pixels: (1, H, W, C), float 0..1."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return torch.from_numpy(pixels.astype(np.float32) / 255.0)[None]


def report_of(output) -> dict:
    """The report that the node gives as text."""
    return json.loads(output.args[2])
