"""What computes: the layers of a network on fixed inputs.

They are looked at in every step of a sampling and in every encoding.
"""

import sys
from collections.abc import Iterator

import comfy.model_base
import comfy.sd
import comfy.sd1_clip
import torch
from modular_safety_lora.merge import on_model
from staging import Stage

# of a layer's output: the rounding of saved half-precision weights is under it, a LoRA far over it
SAME = 2e-3
HOST = (
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "nodes",
)
ON_A_PATCHER = (
    "patches",
    "object_patches",
    "model_options",
    "attachments",
    "additional_models",
    "callbacks",
    "wrappers",
    "injections",
    "hook_patches",
    "weight_wrapper_patches",
    "forced_hooks",
    "load_device",
)


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


class Layers:
    """What each layer of a network makes of a fixed input.

    It shows its weights, and whatever stands before or after them.
    """

    def __init__(self, network: torch.nn.Module):
        self.inputs = {name: fixed(module) for name, module in layers(network)}
        self.outputs = {name: self.output(name, module) for name, module in layers(network)}

    def output(self, name: str, module: torch.nn.Module) -> torch.Tensor:
        if self.inputs[name] is None:
            return torch.cat(
                [each.detach().flatten().float() for each in module.parameters(recurse=False)]
            )
        return module(self.inputs[name]).float()

    def distance(self, network: torch.nn.Module) -> float:
        """The greatest relative difference of a layer; infinite when one is not there."""
        now = dict(layers(network))
        if not self.outputs.keys() <= now.keys():
            return float("inf")
        return max(
            ((self.output(name, now[name]) - then).norm() / then.norm().clamp(min=1e-6)).item()
            for name, then in self.outputs.items()
        )


class Watch:
    """A spy where the host runs a network.

    Does the network carry the lock, and are its layers those of the first that ran?
    """

    def __init__(self):
        self.seen: list[tuple[str, bool, float]] = []
        self.safe: dict[str, Layers] = {}

    def __enter__(self) -> "Watch":
        model, encoder, clip, watch = (
            comfy.model_base.BaseModel,
            comfy.sd1_clip.SD1ClipModel,
            comfy.sd.CLIP,
            self,
        )
        run, encode, load = self.before = (
            model._apply_model,
            encoder.encode_token_weights,
            clip.load_model,
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

        model._apply_model, encoder.encode_token_weights, clip.load_model = (
            running,
            encoding,
            loading,
        )
        return self

    def __exit__(self, *_) -> None:
        model, encoder, clip = (
            comfy.model_base.BaseModel,
            comfy.sd1_clip.SD1ClipModel,
            comfy.sd.CLIP,
        )
        model._apply_model, encoder.encode_token_weights, clip.load_model = self.before

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


def marks(stage: Stage, merged) -> dict[str, object]:
    """What a node must leave alone, by identity.

    That is the host's functions, and what sits on the base and on the merged model.
    """
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in HOST or name in ("torch", "torch.nn.functional"):
            for key, value in list(vars(module).items()):
                if callable(value):
                    found[f"{name}.{key}"] = id(value)
                if isinstance(value, type) and value.__module__ == name:
                    found |= {
                        f"{name}.{key}.{each}": id(at)
                        for each, at in vars(value).items()
                        if callable(at)
                    }
    patchers = {
        "base": stage.base,
        "base clip": stage.base_clip.patcher,
        "merged": merged.model,
        "clip": merged.clip.patcher,
    }
    for name, patcher in patchers.items():
        found |= {f"{name}.{each}": frozen(getattr(patcher, each)) for each in ON_A_PATCHER}
        found |= {
            f"{name}.model.{each}": True
            for each in vars(patcher.model)
            if each not in patcher.object_patches
        }
    return found


def frozen(value: object) -> object:
    """A value as containers of identities, so that a change inside shows."""
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else id(value)


def left_behind(before: dict[str, object], now: dict[str, object]) -> list[str]:
    """What changed between two readings of the marks, or is new on a network."""
    changed = {key for key in before.keys() & now.keys() if before[key] != now[key]}
    return sorted(changed | {key for key in now.keys() - before.keys() if ".model." in key})
