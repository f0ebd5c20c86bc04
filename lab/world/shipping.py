"""What was trained, as the few bytes that ship."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ...emoji import packing
from ...emoji.files import BASE


def ship(trained: dict[str, torch.Tensor], vae: dict[str, torch.Tensor], file: Path = BASE):
    """Write the network and the autoencoder in few bytes."""
    parts = {f"network.{name}": value for name, value in trained.items() if name != "pos_embed"}
    parts |= {f"vae.{name}": value for name, value in vae.items()}
    save_file(packing.packed(parts), file, {"format": "pt"})
