"""What a trained layer's tensors are called in the file.

The tools of its architecture find them by these names.
"""

from collections.abc import Mapping

import comfy.utils
import torch

KOHYA = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
ARCHITECTURES = {
    "SD15": "stable-diffusion-v1",
    "SDXL": "stable-diffusion-xl-v1-base",
    "Flux": "flux-1-dev",
}


def in_ecosystem_names(
    tensors: Mapping[str, torch.Tensor], unet_config: Mapping
) -> dict[str, torch.Tensor]:
    """Tensors named `diffusion_model.<layer>.lora_A.weight`, ... as the most tools read them.

    For the UNets of Stable Diffusion 1, 2 and XL the names are kohya's, `lora_unet_<diffusers'
    layer>.lora_down.weight`, read by ComfyUI, diffusers, sd-scripts and others; for every other
    architecture the names stay, which ComfyUI reads.
    """
    layers = {
        ours.removesuffix(".weight"): theirs.removesuffix(".weight")
        for theirs, ours in comfy.utils.unet_to_diffusers(unet_config).items()
        if theirs.endswith(".weight") and not theirs.startswith("class_embedding")
    }
    named = {}
    for key, tensor in tensors.items():
        layer, part = _split(key.removeprefix("diffusion_model."))
        if layer in layers:
            key = f"lora_unet_{layers[layer].replace('.', '_')}.{KOHYA.get(part, part)}"
        named[key] = tensor
    return named


def model_spec(base: str, title: str) -> dict[str, str]:
    """The entries of ModelSpec 1.0 that model managers show.

    There is no date: the same run gives the same file.
    """
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{ARCHITECTURES.get(base, base.lower())}/lora",
        "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI",
        "modelspec.title": title,
    }


def kohya_metadata(rank: int, alpha: float, rate: float, steps: int, base: str) -> dict[str, str]:
    """The `ss_*` entries of sd-scripts that tools show for a LoRA."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_learning_rate": str(rate),
        "ss_steps": str(steps),
        "ss_base_model_version": base,
    }


def _split(key: str) -> tuple[str, str]:
    """(layer, part) of a key: `attn.to_q.lora_A.weight` is of the layer `attn.to_q`."""
    layer = key.rsplit(".", 2 if key.endswith(".weight") else 1)[0]
    return layer, key.removeprefix(f"{layer}.")
