"""Which part of a network is not what it was, for the words of an error: modules and weights."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import ReferenceType, WeakKeyDictionary, ref

import comfy.lora
import torch
from comfy.model_patcher import LowVramPatch, ModelPatcher
from comfy.utils import get_attr

from ..options.words import amount

SAMPLES = 16  # values of each weight
NAMED = 3  # parts that are named in an error
PATCHED = 0.05  # how far a weight in memory may lie from what its patches make of it
OF_THE_HOST = ("comfy", "prev_comfy", "_")  # attributes by which the host keeps count of a module
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@dataclass(frozen=True)
class Snapshot:
    """A network as it was: modules and settings by name, some values of the weights as loaded.

    `classes` has the forward of each class of its modules.
    """

    network: ReferenceType[torch.nn.Module]
    modules: dict[str, tuple[int, type]]
    settings: dict[str, dict[str, object]]
    classes: dict[type, object]
    values: dict[str, torch.Tensor]


_known: WeakKeyDictionary[torch.nn.Module, Snapshot] = WeakKeyDictionary()


def snapshot(patcher: ModelPatcher) -> Snapshot:
    """The network of a model as it is now; looked at once in its life."""
    network = patcher.model
    if network not in _known:
        modules = dict(_modules(network))
        _known[network] = Snapshot(
            ref(network),
            {name: (id(each), type(each)) for name, each in modules.items()},
            {name: _settings(each) for name, each in modules.items()},
            {type(each): _forward(type(each)) for each in modules.values()},
            {key: _some(each) for key, each in _weights(patcher)},
        )
    return _known[network]


def changed(then: Snapshot, patcher: ModelPatcher) -> list[str]:
    """Parts that are not what they were, by name: at most three, and how many more."""
    found = list(dict.fromkeys(_changed(then, patcher)))
    more = [f"{amount(len(found) - NAMED, 'more part')}"] if len(found) > NAMED else []
    return found[:NAMED] + more


def _changed(then: Snapshot, patcher: ModelPatcher) -> Iterator[str]:
    network = patcher.model
    same = then.network() is network
    yield from (f"patched {name} of the model" for name in _replaced(network))
    for kind, forward in then.classes.items():
        if _forward(kind) is not forward:
            yield f"patched forward of the class {kind.__name__}"
    for name, module in _modules(network):
        number, kind = then.modules.get(name, (0, type(None)))
        if type(module) is not kind or (same and id(module) != number):
            yield f"replaced module {name}"
            continue
        yield from (f"patched {what} of {name}" for what in _replaced(module))
        if any(getattr(module, each) for each in HOOKS):
            yield f"hook on {name}"
        if any(not isinstance(each, LowVramPatch) for each in _functions(module)):
            yield f"function on the weights of {name}"
        settings = then.settings[name] if same else {}
        for what, value in _settings(module).items():
            if settings.get(what, value) != value:
                yield f"setting {what} of {name}"
    for key, value in _weights(patcher):
        known = then.values.get(key)
        if known is not None and not torch.equal(_some(value), known):
            yield f"weights written over in {key}"
    for key in patcher.backup.keys() & patcher.patches.keys():
        now = _weight_at(network, key)
        if now is not None and type(now) in (torch.Tensor, torch.nn.Parameter):
            own = patcher.backup[key].weight.to(now.device, torch.float32, copy=True)
            made = comfy.lora.calculate_weight(patcher.patches[key], own, key)
            if not (now.float() - made).norm() <= PATCHED * made.norm():
                yield f"weights written over in {key}"


def _replaced(module: torch.nn.Module) -> list[str]:
    """Methods in whose place a module has other code of its own."""
    own = vars(module)
    return [
        name
        for name, value in own.items()
        if isinstance(getattr(type(module), name, None), types.FunctionType)
        and getattr(value, "__func__", None) is not getattr(type(module), name)
    ]


def _functions(module: torch.nn.Module) -> Iterator[object]:
    for name in ("weight_function", "bias_function"):
        yield from getattr(module, name, ())


def _settings(module: torch.nn.Module) -> dict[str, object]:
    """Numbers and switches that a module computes by."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int | float | bool) and not name.startswith(OF_THE_HOST)
    }


def _weight_at(network: torch.nn.Module, key: str) -> torch.Tensor | None:
    try:
        weight: torch.Tensor = get_attr(network, key)
        return weight
    except AttributeError:  # a module above it was replaced
        return None


def _forward(kind: type) -> object:
    return getattr(kind, "forward")  # noqa: B009  every class of modules has one


def _inside(network: torch.nn.Module) -> torch.nn.Module:
    """What computes of a model: its diffusion network, or all of a text encoder."""
    inside: torch.nn.Module = getattr(network, "diffusion_model", network)
    return inside


def _modules(network: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    return ((name or "the network", each) for name, each in _inside(network).named_modules())


def _weights(patcher: ModelPatcher) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights and buffers as loaded, whatever is on them now, but quantised ones."""
    network = patcher.model
    prefix = "diffusion_model." if hasattr(network, "diffusion_model") else ""
    inside = _inside(network)
    for name, value in (*inside.named_parameters(), *inside.named_buffers()):
        key = prefix + name
        value = patcher.backup[key].weight if key in patcher.backup else value
        if type(value.data) is torch.Tensor and value.numel():
            yield key, value


def _some(value: torch.Tensor) -> torch.Tensor:
    flat = value.detach().reshape(-1)
    places = torch.linspace(0, len(flat) - 1, min(SAMPLES, len(flat)), dtype=torch.float64).long()
    return flat[places.to(flat.device)].float().cpu()
