"""A safety module on a model's weights, and what is left of it in the weights that compute."""

from collections.abc import Iterable

import comfy.model_management
import comfy.ops
import torch
from comfy.utils import get_attr

from ...host.weights import loaded_weight
from ...merge.on_model import KEY
from ...modules.files import LoraFile

CPU = torch.device("cpu")
SIZE = 0.01  # of a change, relative to its weight


def quantised_layers(model) -> list[str]:
    """The layers whose weights are quantised."""
    modules = model.model.diffusion_model.named_modules()
    return [name for name, module in modules if getattr(module, "layout_type", None)]


def module_for(model, layers: Iterable[str]) -> tuple[LoraFile, dict[str, torch.Tensor]]:
    """A seeded safety module of rank 4 on some linear layers, and its changes by weight."""
    generator, tensors, changes = torch.Generator().manual_seed(1), {}, {}
    for layer in layers:
        key = f"diffusion_model.{layer}"
        w0 = loaded_weight(model, f"{key}.weight").to(CPU)
        up, down = (
            torch.randn(*size, generator=generator) for size in ((len(w0), 4), (4, w0.shape[1]))
        )
        up *= SIZE * w0.norm() / (up @ down).norm()
        tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        changes[f"{key}.weight"] = up @ down
    metadata = {"msl.role": "safety", "msl.strength": "1.0", "msl.base": "x", "msl.concept": "x"}
    return LoraFile("rounded.safetensors", "safety", "digest", metadata, tensors), changes


def computing(patcher, key: str) -> torch.Tensor:
    """The weight that a loaded layer computes with, by the host's own code."""
    layer = get_attr(patcher.model, key.rpartition(".")[0])
    weight = layer.weight
    if layer.weight_function or layer.comfy_cast_weights:
        weight = comfy.ops.cast_bias_weight(
            layer,
            dtype=torch.float32,
            device=patcher.load_device,
            bias_dtype=torch.float32,
            want_requant=not layer.weight_function,  # as where it multiplies in its format
        )[0]
    return (weight.dequantize() if hasattr(weight, "dequantize") else weight).detach().float().cpu()


def retained(patcher, before: dict, changes: dict) -> float:
    """<W - W0, dW> / |dW|^2 over all weights, W as it computes."""
    moved = {key: computing(patcher, key) - before[key] for key in changes}
    pull = sum(torch.sum(moved[key] * change).item() for key, change in changes.items())
    return pull / sum(change.square().sum().item() for change in changes.values())


def kept(patcher, before: dict, changes: dict) -> dict[str, float]:
    """What is left of the changes, patched in memory and streaming; the model is as it was after.

    Raises AssertionError where the lock finds a change on no weight that computes.
    """
    found = {}
    for name in ("in memory", "streaming"):
        load(patcher, name == "streaming")
        found[name] = retained(patcher, before, changes)
        assert not patcher.get_attachment(KEY).not_computed(patcher)
        patcher.unpatch_model(CPU)
    comfy.model_management.unload_all_models()
    return found


def load(patcher, streaming: bool) -> None:
    """Load a model with its patches in memory, or at use as where memory is short."""
    comfy.model_management.unload_all_models()
    if streaming:
        patcher.patch_model(device_to=patcher.load_device, lowvram_model_memory=1)
    else:
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
