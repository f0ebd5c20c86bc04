"""The diffusion model's sizes, and what its weights lack in the file that ships.

It is SD3's transformer, small: ComfyUI knows it by its joint blocks, at any width of 64 times its
depth.
"""

import torch
from torch import nn

DEPTH = 4
WIDTH = 64 * DEPTH
LATENT = 16  # channels
PLACES = 16  # rows and columns that the embedding of places has
TEXT, POOLED = 4096, 2048  # what the host's text encoders of SD3 give
READ = 768  # of both: CLIP-L's part, the rest is zero
WIDER = {"context_embedder.weight": TEXT, "y_embedder.mlp.0.weight": POOLED}


def places() -> torch.Tensor:
    """Fixed sines and cosines of rows and columns, (1, PLACES * PLACES, WIDTH)."""
    steps = 1 / 1000 ** (torch.arange(WIDTH // 4) / (WIDTH // 4))
    angles = torch.arange(PLACES)[:, None] * steps
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (PLACES, WIDTH / 2)
    rows = waves[:, None].expand(-1, PLACES, -1)
    columns = waves[None].expand(PLACES, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(1, PLACES**2, WIDTH)


def whole(narrow: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights with the inputs that the host's text encoders fill with zeros."""
    found = dict(narrow)
    for name, inputs in WIDER.items():
        found[name] = nn.functional.pad(narrow[name], (0, inputs - READ))
    return found
