"""The names of a trained layer's tensors in the file, as its architecture's tools expect them."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import comfy.utils
import torch
from comfy.supported_models_base import BASE

from .families import of_class

Reorder: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
# diffusers' layer, (0, first row, rows) of ComfyUI's that are its, and how those are ordered
Part: TypeAlias = tuple[str, tuple[int, int, int] | None, Reorder]
KOHYA = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}


def in_ecosystem_names(
    tensors: Mapping[str, torch.Tensor], config: BASE
) -> dict[str, torch.Tensor]:
    """Tensors named `diffusion_model.<layer>.lora_A.weight`, ... as the most tools read them.

    `config` is the config of ComfyUI's model. For the UNets of Stable Diffusion 1, 2 and XL the
    names are kohya's, `lora_unet_<diffusers' layer>.lora_down.weight`, read by ComfyUI, diffusers,
    sd-scripts and others. Where a family's row says that diffusers refuses `alpha`, they are
    without it, and PEFT's, `transformer.<diffusers' layer>`, or ComfyUI's: both tools read those.
    For every other family they stay, which ComfyUI reads, and diffusers too for Qwen-Image; and for
    a DoRA of a transformer, since diffusers reads none.
    """
    if "num_res_blocks" in config.unet_config:
        return _kohya(tensors, config.unet_config)
    family = of_class(type(config).__name__)
    if family.alpha or any(key.endswith(".dora_scale") for key in tensors):
        return dict(tensors)
    plain = _without_alpha(tensors)
    if family.diffusers is None:
        return plain
    return _in_parts(plain, family.diffusers(config.unet_config)) or dict(tensors)


def model_spec(base: str, title: str) -> dict[str, str]:
    """The entries of ModelSpec 1.0, for model managers; no date: the same run, the same file."""
    architecture = of_class(base).architecture or base.lower()
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora",
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


def _kohya(
    tensors: Mapping[str, torch.Tensor], unet_config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
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


def _without_alpha(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same changes without `alpha`: every `lora_B` times alpha / rank."""
    plain = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    for key, value in tensors.items():
        layer, part = _split(key)
        if part == "alpha":
            rank = len(plain[f"{layer}.lora_A.weight"])
            plain[f"{layer}.lora_B.weight"] = plain[f"{layer}.lora_B.weight"] * (value / rank)
    return plain


def _in_parts(
    tensors: Mapping[str, torch.Tensor], table: Mapping[str, Any]
) -> dict[str, torch.Tensor] | None:
    """Each layer as the layers that diffusers has for it; None when it has none for one of them.

    Rows of B A are rows of B times A, so every part has the same A, and the parts are exact.
    """
    targets = _targets(table)
    named = {}
    for key, up in tensors.items():
        layer, part = _split(key)
        if part != "lora_B.weight":
            continue
        parts = _parts(targets[f"{layer}.weight".removeprefix("diffusion_model.")], len(up))
        if not parts:
            return None
        for name, rows, reorder in parts:
            named[f"transformer.{name}.lora_A.weight"] = tensors[f"{layer}.lora_A.weight"].clone()
            named[f"transformer.{name}.lora_B.weight"] = reorder(up[rows]).clone()
    return named


def _targets(table: Mapping[str, Any]) -> Mapping[str, list[Part]]:
    """A table the other way round: (diffusers' layer, rows or None, reorder) by ComfyUI's weight.

    It maps to a weight's name, or to (name, (0, first row, rows) or None[, reorder]). ComfyUI
    reorders the rows of a file's change; the one function there is, which swaps halves, is its own
    inverse.
    """
    targets: dict[str, list[Part]] = defaultdict(list)
    for theirs, target in table.items():
        parts = (target,) if isinstance(target, str) else target
        ours, rows, reorder = (*parts, None, None)[:3]
        if theirs.endswith(".weight"):
            targets[ours].append((theirs.removesuffix(".weight"), rows, reorder or _as_it_is))
    return targets


def _parts(targets: list[Part], size: int) -> list[tuple[str, slice, Reorder]]:
    """The first targets that lie one after the other on all `size` rows; none when they do not."""
    parts: list[tuple[str, slice, Reorder]] = []
    end = 0
    for name, rows, reorder in targets:
        _, start, length = rows or (0, 0, size)
        if start == end < size:
            end += length
            parts.append((name, slice(start, end), reorder))
    return parts if end == size else []


def _as_it_is(rows: torch.Tensor) -> torch.Tensor:
    return rows


def _split(key: str) -> tuple[str, str]:
    """(layer, part) of a key: `attn.to_q.lora_A.weight` is of the layer `attn.to_q`."""
    layer = key.rsplit(".", 2 if key.endswith(".weight") else 1)[0]
    return layer, key.removeprefix(f"{layer}.")
