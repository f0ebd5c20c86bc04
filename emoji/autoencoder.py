"""The autoencoder as ComfyUI reads it: its TAESD, most of whose blocks are zeros."""

import torch

CHANNELS = 16


def whole(alive: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The host's whole TAESD: what is alive, and zeros."""
    from comfy.taesd.taesd import TAESD

    with torch.device("meta"):
        every = TAESD(latent_channels=CHANNELS).state_dict()
    return {name: alive.get(name, torch.zeros(each.shape)) for name, each in every.items()}
