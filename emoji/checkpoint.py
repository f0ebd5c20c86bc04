"""The checkpoint that ComfyUI's stock loader reads, from what is shipped and a seed."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..storage.whole import whole
from . import autoencoder, network, packing, text
from .files import BASE

CHECKPOINT = "emoji-sd3.safetensors"


def weights(shipped: Path = BASE) -> dict[str, torch.Tensor]:
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


def write(file: Path, shipped: Path = BASE) -> None:
    """Write the checkpoint, 250 MB."""
    with whole(file) as part:
        save_file(weights(shipped), part, {"format": "pt"})


def made_in(folder: Path) -> Path:
    """The checkpoint in a folder, written if it is not there; its name says what it was made of."""
    digest = hashlib.sha256(BASE.read_bytes()).hexdigest()
    file = folder / f"example-model-{digest[:12]}.safetensors"
    if not file.is_file():
        write(file)
    return file
