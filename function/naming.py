"""Which part of a network is not what it was, for the words of an error: modules and weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

import comfy.lora
import torch
from comfy.model_patcher import ModelPatcher

SAMPLES = 16  # values of each weight
NAMED = 3  # parts that are named in an error
PATCHED = 0.05  # how far a weight in memory may lie from what its patches make of it


@dataclass(frozen=True)
class Seen:
    """A network as it was: its modules by name, and some values of the weights as loaded."""

    network: ref
    modules: dict[str, tuple[int, type]]
    values: dict[str, torch.Tensor]


_known: WeakKeyDictionary[torch.nn.Module, Seen] = WeakKeyDictionary()


def seen(patcher: ModelPatcher) -> Seen:
    """The network of a model as it is now; looked at once in its life."""
    network = patcher.model
    if network not in _known:
        modules = {name: (id(each), type(each)) for name, each in _modules(network)}
        values = {key: _some(each) for key, each in _weights(patcher)}
        _known[network] = Seen(ref(network), modules, values)
    return _known[network]


def changed(then: Seen, patcher: ModelPatcher) -> list[str]:
    """Parts that are not what they were, by name: at most three, and how many more."""
    found = list(_changed(then, patcher))
    more = [f"{len(found) - NAMED} more parts"] if len(found) > NAMED else []
    return found[:NAMED] + more


def _changed(then: Seen, patcher: ModelPatcher) -> Iterator[str]:
    network = patcher.model
    same = then.network() is network
    for name, module in _modules(network):
        number, kind = then.modules.get(name, (0, type(None)))
        if type(module) is not kind or (same and id(module) != number):
            yield f"replaced module {name}"
        elif "forward" in vars(module) and _is_other(module):
            yield f"patched forward of {name}"
        elif module._forward_hooks or module._forward_pre_hooks:
            yield f"hook on {name}"
    for key, value in _weights(patcher):
        known = then.values.get(key)
        if known is not None and not torch.equal(_some(value), known):
            yield f"weights written over in {key}"
    for key in patcher.backup:
        now = comfy.utils.get_attr(network, key)
        if key in patcher.patches and type(now) in (torch.Tensor, torch.nn.Parameter):
            own = patcher.backup[key].weight.to(now.device, torch.float32, copy=True)
            made = comfy.lora.calculate_weight(patcher.patches[key], own, key)
            if not (now.float() - made).norm() <= PATCHED * made.norm():
                yield f"weights written over in {key}"


def _is_other(module: torch.nn.Module) -> bool:
    own = vars(module)["forward"]
    return getattr(own, "__func__", None) is not type(module).forward


def _modules(network: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    inside = network.diffusion_model if hasattr(network, "diffusion_model") else network
    return iter(inside.named_modules())


def _weights(patcher: ModelPatcher) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights and buffers as loaded, whatever is on them now, but quantised ones."""
    network = patcher.model
    prefix = "diffusion_model." if hasattr(network, "diffusion_model") else ""
    inside = network.diffusion_model if prefix else network
    for name, value in (*inside.named_parameters(), *inside.named_buffers()):
        key = prefix + name
        value = patcher.backup[key].weight if key in patcher.backup else value
        if type(value.data) is torch.Tensor and value.numel():
            yield key, value


def _some(value: torch.Tensor) -> torch.Tensor:
    flat = value.detach().reshape(-1)
    places = torch.linspace(0, len(flat) - 1, min(SAMPLES, len(flat)), dtype=torch.float64).long()
    return flat[places.to(flat.device)].float().cpu()
