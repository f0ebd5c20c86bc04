"""What is left of a safety change once the host has rounded the patched weight, and a way around.

Where weights are quantised, the host patches them in memory by taking them apart, adding, and
rounding to the format again; at use it adds to the weight as it computes, unrounded. In a format of
four bits the rounding takes a fifth of a small change, so what is left would depend on how much
memory there is. Such weights are patched at use alone.
"""

from collections.abc import Mapping, Sequence

import comfy.lora
import torch
from comfy.model_patcher import LowVramPatch, ModelPatcher, get_key_weight
from comfy.utils import get_attr, set_attr_param, string_to_seed

from ..host.weights import loaded_weight
from .changes import Change, dense_change

LOOKED_AT = 8  # layers of each format
ENOUGH = 0.99  # of a safety change must survive rounding
# by weight: the safety changes on it, of all modules
Safety = Mapping[str, Sequence[Change]]


def format_of(patcher: ModelPatcher, key: str) -> str | None:
    """The quantised format that a weight is held in; None for a plain one."""
    module = get_attr(patcher.model, key.rpartition(".")[0])
    return getattr(module, "quant_format", None) if key.endswith(".weight") else None


def rounded(patcher: ModelPatcher, safety: Safety) -> tuple[dict[str, dict], frozenset[str]]:
    """What rounding does to the safety changes on a patched model, and what is patched at use.

    Gives, by format, the retained safety of some layers before and after the host's own rounding,
    as {"layers", "looked_at", "before", "after", "held"}, and the weights that are better held at
    use: those of a format that keeps less than `ENOUGH` of it. Nothing on the model changes.
    """
    formats: dict[str, list[str]] = {}
    for key in safety:
        name = format_of(patcher, key)
        if name is not None:
            formats.setdefault(name, []).append(key)
    found, at_use = {}, set()
    for name, keys in sorted(formats.items()):
        some = keys[:: max(1, len(keys) // LOOKED_AT)][:LOOKED_AT]
        before, after = _retained(patcher, {key: safety[key] for key in some})
        loses = not before - after <= 1.0 - ENOUGH  # also where a number is none
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
    """Patch these weights of a loaded model when they are used, and not in memory.

    The host does the same with weights that do not fit; the mark that it has done so makes it take
    the patches off again. A dynamic patcher patches at use anyway.
    """
    for key in keys if not patcher.is_dynamic() else ():
        module = get_attr(patcher.model, key.rpartition(".")[0])
        backup = patcher.backup.pop(key, None)
        if backup is not None:
            device = get_attr(patcher.model, key).device
            set_attr_param(patcher.model, key, backup.weight.to(device))
        if not any(isinstance(each, LowVramPatch) for each in module.weight_function):
            _, set_weight, convert = get_key_weight(patcher.model, key)
            patch = LowVramPatch(key, patcher.patches, convert, set_weight)
            module.weight_function = [*module.weight_function, patch]
        patcher.model.model_lowvram = True


def _retained(patcher: ModelPatcher, safety: Safety) -> tuple[float, float]:
    """<W - W0, dW_s> / |dW_s|^2 over some weights, with W as it should be and as the host holds it.

    W has everything on it that the model has.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for key, changes in safety.items():
        w0 = loaded_weight(patcher, key)
        change = sum(dense_change(each, w0, key) for each in changes)
        whole = comfy.lora.calculate_weight(patcher.patches[key], w0.clone(), key)
        # not as patcher.patch_weight_to_device does it: another merge's weight may be loaded
        _, set_weight, _ = get_key_weight(patcher.model, key)
        seed = string_to_seed(key)
        held = set_weight(whole.clone(), inplace_update=False, seed=seed, return_weight=True)
        for place, value in enumerate((change, whole - w0, held.dequantize().to(w0) - w0)):
            sums[place] += torch.sum(value.double() * change.double()).item()
    square, before, after = sums.tolist()
    return (before / square, after / square) if square else (1.0, 1.0)
