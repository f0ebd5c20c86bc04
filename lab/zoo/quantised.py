"""The zoo's models held as quantised checkpoints hold them, loaded by the host's own code."""

import json
from collections.abc import Mapping

import comfy.model_management
import comfy.ops
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

from . import TWINS, build, config_of

FORMATS = ("float8_e4m3fn", "mxfp8", "int8_tensorwise", "nvfp4")
SCALED = "scaled_fp8"  # the older way to write fp8 with a scale: the host converts it on loading
SIDE = 32  # layers whose sides are no multiples of it stay as they are, as blocks of scales need it


def quantised(
    key: str,
    name: str,
    other: torch.dtype = torch.float32,
    sizes: Mapping[str, object] | None = None,
) -> ModelPatcher:
    """A MODEL of one of the TWINS whose larger linear layers are quantised.

    `name` is one of FORMATS, or SCALED; all else is held and computed in the dtype `other`. The
    state dict is what the host writes for such layers, and the host reads it: the class of the
    layers, their scales and their arithmetic are its own.
    """
    plain = build(key, other, cast=other, sizes=sizes).model.diffusion_model
    weights = dict(plain.state_dict())
    if name == SCALED:
        weights["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    for layer, module in plain.named_modules():
        if isinstance(module, torch.nn.Linear) and _fits(module.weight.shape):
            weights |= _held(layer, module.weight.detach(), name)
    weights, _ = comfy.utils.convert_old_quants(weights, "")
    config = config_of(key, sizes)
    config.quant_config = comfy.utils.detect_layer_quantization(weights, "")
    config.set_inference_dtype(other, other)
    model = config.get_model(weights, "", torch.device("cpu"))
    if TWINS[key].adjust:
        raise ValueError(f"{key} is made by hand in part; there is no quantised one.")
    model.load_model_weights(weights, "")
    return ModelPatcher(model, torch.device("cpu"), comfy.model_management.unet_offload_device())


def _fits(shape: torch.Size) -> bool:
    return min(shape) >= SIDE and not any(side % SIDE for side in shape)


def _held(layer: str, weight: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
    """The entries of a state dict for one layer."""
    if name == SCALED:
        scale = weight.abs().max() / torch.finfo(torch.float8_e4m3fn).max
        held = (weight / scale).to(torch.float8_e4m3fn)
        return {f"{layer}.weight": held, f"{layer}.scale_weight": scale}
    layout = QUANT_ALGOS[name]["comfy_tensor_layout"]
    held = QuantizedTensor.from_float(weight, layout, scale="recalculate")
    said = torch.tensor(list(json.dumps({"format": name}).encode()), dtype=torch.uint8)
    return held.state_dict(f"{layer}.weight") | {f"{layer}.comfy_quant": said}
