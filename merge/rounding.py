"""What is left of a safety change once the host has rounded the patched weight, and a way around.

Where weights are quantised, the host patches them in memory by taking them apart, adding, and
rounding to the format again, as its dynamic patcher does with those that it keeps in VRAM; at use
it adds to the weight as it computes, unrounded. In a format of four bits the rounding takes a fifth
of a small change, so what is left would depend on how much memory there is. Such weights are
patched at use alone.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import comfy.lora
import torch
from comfy.float import stochastic_rounding
from comfy.model_patcher import LowVramPatch, ModelPatcher, get_key_weight
from comfy.utils import get_attr, set_attr_param, string_to_seed

from ..host.weights import loaded_weight
from .changes import Change, dense_change

LOOKED_AT = 8  # layers of each format
ENOUGH = 0.99  # of a safety change must survive rounding
PLAIN = (torch.float8_e4m3fn, torch.float8_e5m2)  # fp8 without scales
# by weight: the safety changes on it, of all modules
Safety: TypeAlias = Mapping[str, Sequence[Change]]
Formats: TypeAlias = dict[str, dict[str, object]]  # by format, for the report


def format_of(patcher: ModelPatcher, key: str) -> str | None:
    """The coarse format that a weight is held in, quantised or plain fp8; None for another."""
    module = get_attr(patcher.model, key.rpartition(".")[0])
    quantised = getattr(module, "quant_format", None) if key.endswith(".weight") else None
    held = get_attr(patcher.model, key).dtype
    return quantised or (f"{held} storage".removeprefix("torch.") if held in PLAIN else None)


def rounded(patcher: ModelPatcher, safety: Safety) -> tuple[Formats, frozenset[str]]:
    """What rounding does to the safety changes on a patched model, and what is patched at use.

    Gives, by format, the retained safety of some layers before and after the host's own rounding,
    as {"layers", "looked_at", "before", "after", "held"}, and the weights that are better held at
    use: those of a format that keeps less than `ENOUGH` of it, or where the layers differ so much
    that it can't be told, or that the host can't round to ("after" is None). Nothing on the model
    changes.
    """
    formats: dict[str, list[str]] = {}
    for key in safety:
        name = format_of(patcher, key)
        if name is not None:
            formats.setdefault(name, []).append(key)
    found: Formats = {}
    at_use: set[str] = set()
    for name, keys in sorted(formats.items()):
        some = keys[:: max(1, len(keys) // LOOKED_AT)][:LOOKED_AT]
        before, after, spread = _retained(patcher, {key: safety[key] for key in some})
        # two standard errors; also where a number is none
        loses = after is None or not before - after + 2 * spread <= 1.0 - ENOUGH
        at_use |= set(keys) if loses else set()
        found[name] = {
            "layers": len(keys),
            "looked_at": len(some),
            "before": before,
            "after": after,
            "held": "at use, unrounded" if loses else "in memory, rounded",
        }
    return found, frozenset(at_use)


def hold_at_use(patcher: ModelPatcher, keys: frozenset[str]) -> None:
    """Patch these weights of a loaded model when they are used, unrounded, again at every load."""
    hold = _hold_brought if patcher.is_dynamic() else _hold
    for key in keys:
        place, _, name = key.rpartition(".")
        hold(patcher, key, get_attr(patcher.model, place), name)


def _hold(patcher: ModelPatcher, key: str, module: torch.nn.Module, name: str) -> None:
    """As the host does with weights that do not fit, marked so that it takes patches off."""
    backup, functions = patcher.backup.pop(key, None), getattr(module, f"{name}_function")
    if backup is not None:
        device = get_attr(patcher.model, key).device
        set_attr_param(patcher.model, key, backup.weight.to(device))
    if not any(isinstance(each, LowVramPatch) for each in functions):
        _, set_weight, convert = get_key_weight(patcher.model, key)
        patch = LowVramPatch(key, patcher.patches, convert, set_weight)
        setattr(module, f"{name}_function", [*functions, patch])
    patcher.model.model_lowvram = True


def _hold_brought(patcher: ModelPatcher, key: str, module: torch.nn.Module, name: str) -> None:
    """Where the host brings weights as they are used, and rounds and keeps what it patched then.

    It keeps a weight unpatched when the patch is one of its functions. Weights that are too small
    to be brought it patches in memory: these stay there unrounded, until it takes them back.
    """
    patch = getattr(module, f"{name}_lowvram_function", None)
    if key in patcher.backup:
        device = get_attr(patcher.model, key).device
        whole = comfy.lora.calculate_weight(patcher.patches[key], loaded_weight(patcher, key), key)
        set_attr_param(patcher.model, key, whole.to(device))
    elif patch is not None:
        setattr(module, f"{name}_lowvram_function", None)
        setattr(module, f"{name}_function", [patch, *getattr(module, f"{name}_function")])


def _retained(patcher: ModelPatcher, safety: Safety) -> tuple[float, float | None, float]:
    """<W - W0, dW_s> / |dW_s|^2 over some weights, with W as it should be and as the host holds it.

    W has everything on it that the model has. The second is None for a format that the host can't
    round to. The third number is the standard error of the difference, from what each weight adds.
    """
    sums, squares, rounds = torch.zeros(3, dtype=torch.float64), 0.0, True
    for key, changes in safety.items():
        w0 = loaded_weight(patcher, key)
        change = sum((dense_change(each, w0, key) for each in changes), torch.zeros_like(w0))
        whole = comfy.lora.calculate_weight(patcher.patches[key], w0.clone(), key)
        rounded_to = _held(patcher, key, whole)
        rounds = rounds and rounded_to is not None
        held = whole if rounded_to is None else rounded_to.to(w0)
        values = (change, whole - w0, held - w0)
        added = torch.stack([torch.sum(each.double() * change.double()) for each in values]).cpu()
        sums += added
        squares += (added[2] - added[1]).item() ** 2
    square, before, after = sums.tolist()
    if not square:
        return 1.0, 1.0 if rounds else None, 0.0
    return before / square, after / square if rounds else None, squares**0.5 / square


def _held(patcher: ModelPatcher, key: str, whole: torch.Tensor) -> torch.Tensor | None:
    """A patched weight as the host holds it in memory; None where it can't round to its format.

    It is not as `patch_weight_to_device` does it: another merge's weight may be loaded.
    """
    _, set_weight, _ = get_key_weight(patcher.model, key)
    seed = string_to_seed(key)
    if set_weight is None:
        dtype = get_attr(patcher.model, key).dtype
        plain: torch.Tensor = stochastic_rounding(whole, dtype, seed=seed)
        return plain
    try:
        held = set_weight(whole.clone(), inplace_update=False, seed=seed, return_weight=True)
    except NotImplementedError:  # its scales come from a calibration, as AWQ's
        return None
    unpacked: torch.Tensor = held.dequantize()
    return unpacked
