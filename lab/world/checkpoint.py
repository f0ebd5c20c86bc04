"""The checkpoint that ComfyUI's stock loader reads, from what is shipped and a seed."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from . import autoencoder, network, packing, text

SHIPPED = Path(__file__).parent / "base.safetensors"
CHECKPOINT = "emoji-sd3.safetensors"


def ship(trained: dict[str, torch.Tensor], vae: dict[str, torch.Tensor], file: Path = SHIPPED):
    """Write the network and the autoencoder in few bytes."""
    parts = {f"network.{name}": value for name, value in trained.items() if name != "pos_embed"}
    parts |= {f"vae.{name}": value for name, value in vae.items()}
    save_file(packing.packed(parts), file, {"format": "pt"})


def weights(shipped: Path = SHIPPED) -> dict[str, torch.Tensor]:
    """All tensors of the checkpoint, in half precision."""
    parts = packing.unpacked(load_file(shipped))

    def part(name: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(name): each for key, each in parts.items() if key.startswith(name)}

    found = {
        f"model.diffusion_model.{name}": value
        for name, value in network.whole(part("network.")).items()
    }
    found["model.diffusion_model.pos_embed"] = network.places()
    found |= {
        f"first_stage_model.{name}": value
        for name, value in autoencoder.whole(part("vae.")).items()
    }
    return {name: value.half().contiguous() for name, value in found.items()} | text.weights()


def write(file: Path, shipped: Path = SHIPPED) -> None:
    """Write the checkpoint."""
    save_file(weights(shipped), file, {"format": "pt"})
