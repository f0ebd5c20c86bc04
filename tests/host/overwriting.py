"""Ways to write over what a loaded network computes with, and what undoes them (tampering.py)."""

import math
from collections.abc import Callable
from contextlib import ExitStack

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

BLOCK = "input_blocks.1.1.transformer_blocks.0"
LINEAR = f"{BLOCK}.attn2.to_out.0"
Undo = ExitStack


def put(undo: Undo, where: object, name: str, value: object) -> None:
    """Set an attribute; what stood in its place, or nothing, is there again afterwards."""
    own = vars(where)
    if name in own:
        undo.callback(setattr, where, name, own[name])
    elif isinstance(where, torch.nn.Module) and isinstance(value, torch.nn.Module):
        undo.callback(setattr, where, name, getattr(where, name))
    else:
        undo.callback(delattr, where, name)
    setattr(where, name, value)


@torch.no_grad()
def write(undo: Undo, weight: torch.Tensor, value: torch.Tensor) -> None:
    """Write over a weight where it lies."""
    before = weight.detach().clone()

    def back() -> None:
        with torch.no_grad():
            weight.copy_(before)

    undo.callback(back)
    weight.copy_(value)


def part(patcher: ModelPatcher, name: str = LINEAR) -> torch.nn.Module:
    return patcher.model.diffusion_model.get_submodule(name)


def scaled(function: Callable, by: float = 0.9) -> Callable:
    return lambda *args, **kwargs: function(*args, **kwargs) * by


def patched_weight(patcher, undo):
    for key in patcher.backup:
        if key.endswith("to_v.weight"):
            weight = comfy.utils.get_attr(patcher.model, key)
            write(undo, weight, 0.5 * weight)


def as_the_base(patcher, undo):
    """The safety changes out of the weights in memory, which the lists still name."""
    for key in patcher.backup:
        write(undo, comfy.utils.get_attr(patcher.model, key), patcher.backup[key].weight)


def as_the_base_and_the_backup(patcher, undo):
    """So that the two agree."""
    as_the_base(patcher, undo)
    for kept in patcher.backup.values():
        write(undo, kept.weight, 0.5 * kept.weight)


def unpatched_weight(patcher, undo):
    weight = part(patcher, "out.2").weight
    write(undo, weight, 0.9 * weight)


def bias(patcher, undo):
    write(undo, part(patcher).bias, part(patcher).bias + 0.2)


def weight_elsewhere(patcher, undo):
    """Another parameter in its place."""
    layer = part(patcher, "out.2")
    before = layer.weight
    undo.callback(setattr, layer, "weight", before)
    layer.weight = torch.nn.Parameter(0.9 * before.detach(), requires_grad=False)


def table(patcher, undo):
    """A buffer: which step of the schedule a noise level is."""
    sampling = patcher.model.model_sampling
    write(undo, sampling.log_sigmas, sampling.log_sigmas + 0.5)


def weight_function(patcher, undo):
    layer = part(patcher)
    put(undo, layer, "weight_function", [*layer.weight_function, lambda weight: 0.9 * weight])


def bias_function(patcher, undo):
    layer = part(patcher)
    put(undo, layer, "bias_function", [*layer.bias_function, lambda bias: bias + 0.2])


def cast(patcher, undo):
    """Every weight rounded to eight bits, in place."""
    for value in patcher.model.diffusion_model.parameters():
        write(undo, value, value.to(torch.float8_e4m3fn).to(value.dtype))


def norm_weight(patcher, undo):
    weight = part(patcher, f"{BLOCK}.norm2").weight
    write(undo, weight, 0.5 * weight)


def no_number(patcher, undo):
    weight = part(patcher, "out.2").weight
    spoilt = weight.detach().clone()
    spoilt.view(-1)[0] = math.nan
    write(undo, weight, spoilt)
