"""A digest of a model, its text encoder and its VAE as they are.

With it no run goes on with another model.
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch

SAMPLES = 64  # values of each tensor
# not in SD1.5's checkpoints: ComfyUI leaves there what the memory held
UNFILLED = "text_projection.weight"


def fingerprint(model, clip, vae) -> str:
    """SHA-256 over 64 evenly spread values of each weight, and over every patch on them.

    Names and shapes go into it too. It tells models and LoRAs apart that differ as a whole, in a
    second for the largest. It is no seal: one changed value between the samples is not seen.
    """
    digest = hashlib.sha256()
    for what, patcher in (("model", model), ("clip", clip.patcher), ("vae", vae.patcher)):
        digest.update(what.encode())
        # the weights as loaded, whatever is on them just now, and the patches of this clone
        for name, patches in sorted(patcher.get_key_patches().items()):
            _add(digest, name, patches[1:] if name.endswith(UNFILLED) else patches)
        _add(digest, "options", patcher.model_options)  # what nodes hook into sampling
        _add(digest, "objects", patcher.object_patches)
    return digest.hexdigest()


def _add(digest, name: str, value) -> None:
    digest.update(f"\0{name}\0".encode())
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        flat = value.detach().reshape(-1)
        picked = flat[
            torch.linspace(
                0, max(len(flat) - 1, 0), min(SAMPLES, len(flat)), dtype=torch.float64
            ).long()
        ]
        digest.update(picked.float().cpu().numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, each in value.items():
            _add(digest, str(key), each)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            _add(digest, "", each)
    elif isinstance(value, (str, int, float, bool, type(None))):
        digest.update(repr(value).encode())
    else:  # an adapter, or a function
        digest.update((getattr(value, "__qualname__", None) or type(value).__qualname__).encode())
        _add(digest, "weights", getattr(value, "weights", ()))
