"""A model that ends its process at a large picture; a worker imports this before ComfyUI."""

import os
from pathlib import Path

from modular_safety_lora.host.comfyui import load_checkpoint

LARGE = 128  # pixels


class Killing:
    """A VAE whose process ends as it decodes a large picture."""

    def __init__(self, vae):
        self.vae, self.patcher = vae, vae.patcher

    def decode(self, samples):
        if samples.shape[-1] * 8 == LARGE:
            os._exit(9)
        return self.vae.decode(samples)


def load_killing(checkpoint: Path):
    """(MODEL, CLIP, VAE), to be given to workers."""
    model, clip, vae = load_checkpoint(checkpoint)
    return model, clip, Killing(vae)
