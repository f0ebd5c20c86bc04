"""What computes: the layers of a network on fixed inputs.

They are looked at in every step of a sampling and in every encoding.
"""

from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import comfy.model_base
import comfy.sd
import comfy.sd1_clip
import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.merge import on_model

# of a layer's output: the rounding of saved half-precision weights is under it, a LoRA far over it
SAME = 2e-3
WEIGHTS = ("_parameters", "_buffers", "_modules")  # of a module: looked at by what they hold


def layers(network: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Modules with parameters of their own, by name.

    The name is the one that they have without a compiler around them.
    """
    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            yield name.replace("_orig_mod.", ""), module


def fixed(module: torch.nn.Module) -> torch.Tensor | None:
    """A seeded input of a layer; None for a module that only holds parameters."""
    generator = torch.Generator().manual_seed(1)
    if isinstance(module, torch.nn.Linear):
        return torch.randn(1, module.in_features, generator=generator)
    if isinstance(module, torch.nn.Conv2d):
        return torch.randn(1, module.in_channels, *module.kernel_size, generator=generator)
    if isinstance(module, torch.nn.GroupNorm):
        return torch.randn(1, module.num_channels, 2, 2, generator=generator)
    if isinstance(module, torch.nn.LayerNorm):
        return torch.randn(1, *module.normalized_shape, generator=generator)
    return torch.arange(4) if isinstance(module, torch.nn.Embedding) else None


def state(module: torch.nn.Module) -> list:
    """All that a layer's output depends on: itself, its code, what is set on it, and its weights.

    Objects are compared by identity and held, so that none takes another's place. Of a weight it
    is the sum, and where it lies has no part in it.
    """
    own = {key: held(value) for key, value in vars(module).items() if key not in WEIGHTS}
    values = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    sums = [(each.dtype, each.shape, each.sum(dtype=torch.float32).item()) for each in values]
    return [Same(module), Same(type(module).forward), own, sums]


class Same:
    """An object that equals itself alone, and lives as long as what it is compared with."""

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


def held(value: object) -> object:
    """A value as containers of what is in them, each thing the same or not."""
    if isinstance(value, dict):
        return {key: held(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [held(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else Same(value)


class Layers:
    """What each layer of a network makes of a fixed input.

    It shows its weights, and whatever stands before or after them.
    """

    def __init__(self, network: torch.nn.Module):
        self.inputs = {name: fixed(module) for name, module in layers(network)}
        self.outputs = {name: self.output(name, module) for name, module in layers(network)}
        self.states = {name: state(module) for name, module in layers(network)}

    def output(self, name: str, module: torch.nn.Module) -> torch.Tensor:
        if self.inputs[name] is None:
            return torch.cat(
                [each.detach().flatten().float() for each in module.parameters(recurse=False)]
            )
        return module(self.inputs[name]).float()

    def distance(self, network: torch.nn.Module) -> float:
        """The greatest relative difference of a layer; infinite when one is not there.

        A layer in the state that it was in gives what it gave.
        """
        now = dict(layers(network))
        if not self.outputs.keys() <= now.keys():
            return float("inf")
        changed = [name for name in self.outputs if state(now[name]) != self.states[name]]
        return max((self.relative(name, now[name]) for name in changed), default=0.0)

    def relative(self, name: str, module: torch.nn.Module) -> float:
        then = self.outputs[name]
        return ((self.output(name, module) - then).norm() / then.norm().clamp(min=1e-6)).item()


class Watch:
    """A spy where the host runs a network.

    Does the network carry the lock, and are its layers those of the first that ran? The names of a
    network's weights, which the host lists for every entry that is put on a model, are kept until
    the next `clear`: some nodes put hundreds.
    """

    def __init__(self):
        self.seen: list[tuple[str, bool, float]] = []
        self.names: WeakKeyDictionary[torch.nn.Module, dict] = WeakKeyDictionary()
        self.safe: dict[str, Layers] = {}

    def __enter__(self) -> "Watch":
        model, encoder, clip, watch = (
            comfy.model_base.BaseModel,
            comfy.sd1_clip.SD1ClipModel,
            comfy.sd.CLIP,
            self,
        )
        run, encode, load, add = self.before = (
            model._apply_model,
            encoder.encode_token_weights,
            clip.load_model,
            ModelPatcher.add_patches,
        )

        def running(model, *args, **kwargs):
            watch.note("model", locked(model.current_patcher), model.diffusion_model)
            return run(model, *args, **kwargs)

        def encoding(encoder, *args, **kwargs):
            watch.note("text encoder", True, encoder)
            return encode(encoder, *args, **kwargs)

        def loading(clip, *args, **kwargs):
            watch.seen.append(("text encoder", locked(clip.patcher), 0.0))
            return load(clip, *args, **kwargs)

        def adding(patcher, *args, **kwargs):
            network = patcher.model
            if network not in watch.names:
                watch.names[network] = dict.fromkeys(network.state_dict())
            network.state_dict = lambda: watch.names[network]
            try:
                return add(patcher, *args, **kwargs)
            finally:
                del network.state_dict

        self._put(running, encoding, loading, adding)
        return self

    def __exit__(self, *_) -> None:
        self._put(*self.before)

    def _put(self, run: Callable, encode: Callable, load: Callable, add: Callable) -> None:
        comfy.model_base.BaseModel._apply_model = run
        comfy.sd1_clip.SD1ClipModel.encode_token_weights = encode
        comfy.sd.CLIP.load_model, ModelPatcher.add_patches = load, add

    def clear(self) -> None:
        """Before another case."""
        self.seen.clear()
        self.names.clear()

    def note(self, what: str, has_lock: bool, network: torch.nn.Module) -> None:
        if what not in self.safe:
            self.safe[what] = Layers(network)
        self.seen.append((what, has_lock, self.safe[what].distance(network)))

    def lost(self) -> str:
        """What ran without the lock or on other weights, in words; empty when nothing did."""
        others = sorted({what for what, _, distance in self.seen if not distance <= SAME})
        unlocked = sorted({what for what, has_lock, _ in self.seen if not has_lock})
        found = [f"the {what} computes with other weights" for what in others]
        return ", and ".join(found + [f"the {what} carries no lock" for what in unlocked])


def locked(patcher) -> bool:
    return patcher is not None and patcher.get_attachment(on_model.KEY) is not None
