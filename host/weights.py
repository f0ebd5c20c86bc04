"""W0: the weights a model was loaded with, whatever sits on it now."""

from pathlib import Path

import torch
from comfy.model_management import cast_to_device
from comfy.model_patcher import ModelPatcher, get_key_weight


def base_name(model: ModelPatcher) -> str:
    """The architecture as ComfyUI detects it: `SD15`, `SDXL`, `Flux`, ..."""
    return type(model.model.model_config).__name__


def file_of(model: ModelPatcher) -> Path | None:
    """The file that ComfyUI's loader read a model from, by the loader's own note of it."""
    made_by = model.cached_patcher_init  # a function, and what it was given
    path = made_by[1][0] if made_by and made_by[1] else None
    return Path(path) if isinstance(path, str) else None


def check_patcher(patcher: ModelPatcher) -> None:
    """Raise ValueError for patchers of other packs (GGUF, Nunchaku), with their own LoRAs."""
    if type(patcher).__module__ != ModelPatcher.__module__:
        raise ValueError(
            f"This model's loader applies LoRAs in its own way ({type(patcher).__name__}), so it"
            " can't be checked whether a safety LoRA stays whole. Load the model with one of"
            " ComfyUI's own loaders."
        )


def patchable(network: torch.nn.Module) -> set[str]:
    """The names of the parameters that the host's loader patches.

    They are those of modules below which no other has any. A patch on another parameter, or on a
    buffer, is listed by the host and never applied.
    """
    found = set()
    for name, module in network.named_modules():
        if not any(next(child.parameters(), None) is not None for child in module.children()):
            found |= {f"{name}.{each}" for each, _ in module.named_parameters(recurse=False)}
    return found


def loaded_weight(patcher: ModelPatcher, key: str) -> torch.Tensor:
    """W0 of one weight as a float32 copy on the load device, as the host computes with it."""
    weight, _, convert = get_key_weight(patcher.model, key)
    if key in patcher.backup:
        weight = patcher.backup[key].weight
    if key in patcher.hook_backup:
        weight = patcher.hook_backup[key][0]
    w0 = cast_to_device(weight, patcher.load_device, torch.float32, copy=True)
    return w0 if convert is None else convert(w0, inplace=True)
