"""The gate of decoding: what a VAE decodes is looked at before any node sees it."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from comfy.sd import VAE

from .keeper import CHANNELS, Keeper

METHODS = ("decode", "decode_tiled")


def install(keeper: Keeper) -> Callable[[], None]:
    """Look at what both ways of decoding give; returns what takes it away again."""
    originals = {name: getattr(VAE, name) for name in METHODS}

    def gated(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def decoded(self: VAE, *args: Any, **kwargs: Any) -> Any:
            keeper.check()
            found = original(self, *args, **kwargs)
            return found if _no_pictures(self, found) else keeper.tensor(found, "decode")

        return decoded

    for name, original in originals.items():
        setattr(VAE, name, gated(original))

    def taken_away() -> None:
        for name, original in originals.items():
            setattr(VAE, name, original)

    return taken_away


def _no_pictures(vae: VAE, found: torch.Tensor) -> bool:
    """Whether this is sound or a shape: by the VAE's own word, and no picture by its form."""
    other = vae.latent_dim == 1 or vae.extra_1d_channel is not None or vae.output_channels == 2
    picture = found.ndim in (4, 5) and found.shape[-1] in CHANNELS
    return other and not picture
