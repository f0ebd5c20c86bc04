"""A digest of a model, its text encoder and its VAE, which an audit's rows are held to."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor
from comfy.sd import CLIP, VAE
from comfy.weight_adapter import WeightAdapterBase
from comfy.weight_adapter.bypass import BypassForwardHook, BypassInjectionManager

from .digest import Digest

SAMPLES = 64  # values of each weight of a network
# not in SD1.5's checkpoints: ComfyUI leaves there what the memory held
UNFILLED = "text_projection.weight"
SAMPLING = "model_sampling"
# of a patcher, what changes its pictures; the rest is where it lies, and what runs left there
ON_PATCHER = (
    "patches", "object_patches", "weight_wrapper_patches", "model_options", "attachments",
    "additional_models", "callbacks", "wrappers", "injections", "hook_patches", "forced_hooks",
)  # fmt: skip
ON_CLIP = ("layer_idx", "tokenizer_options", "use_clip_schedule", "apply_hooks_to_conds")


@dataclass(frozen=True)
class Fingerprint:
    """Two of one digest are one model, unless there is something that can't be told of them."""

    sha256: str
    untold: tuple[str, ...] = ()


def fingerprint(model: ModelPatcher, clip: CLIP, vae: VAE) -> Fingerprint:
    """SHA-256 over what makes the pictures of a MODEL, a CLIP and a VAE.

    Of the weights, 64 evenly spread values each: it tells models apart that differ as a whole, in a
    second for the largest. It is no seal: one changed value between them is not seen. What nodes
    put on them is taken whole: patches, functions with what they hold, objects, other models. What
    is kept in global variables of a custom node is not looked at.
    """
    digest = _OfModels()
    options = [getattr(clip, name) for name in ON_CLIP]
    made = digest.all("models", model, clip.patcher, options, vae.patcher)
    return Fingerprint(made.hex(), tuple(dict.fromkeys(digest.untold)))


def digest_of(kind: str, *values: Any) -> str:
    """The same of other models, such as a CLIP_VISION's patcher, and what stands beside them."""
    return _OfModels().all(kind, *values).hex()


class _OfModels(Digest):
    """Of what hangs on models: their networks are named, once their weights are in the digest."""

    def special(self, value: Any) -> bytes | None:
        if isinstance(value, ModelPatcher):
            with value.use_ejected():
                return self._patcher(value)
        if isinstance(value, WeightAdapterBase):
            return self.all("adapter", type(value), value.weights)
        if isinstance(value, BypassInjectionManager):
            return self.all("bypass", value.hooks)
        if isinstance(value, BypassForwardHook):
            return self._bypass(value)
        return None

    def _patcher(self, patcher: ModelPatcher) -> bytes:
        network = self._weights(patcher)
        own = patcher.object_patches_backup.get(SAMPLING, getattr(patcher.model, SAMPLING, None))
        held = {name: getattr(patcher, name) for name in ON_PATCHER}
        return self.all("model", network, own, held)

    def _weights(self, patcher: ModelPatcher) -> bytes:
        """The weights as loaded, whatever is on them just now. Their modules have names then."""
        own = {
            name: each
            for name, each in patcher.object_patches_backup.items()
            if isinstance(each, torch.nn.Module)
        }
        kept = {name: each.weight for name, each in patcher.backup.items()}
        kept |= patcher.backup_buffers | {n: each[0] for n, each in patcher.hook_backup.items()}
        others, found = (SAMPLING, *own), {}  # other objects may stand there now
        for place, module in {"": patcher.model, **own}.items():
            for name, part in module.named_modules():
                name = ".".join(filter(None, (place, name)))
                if _under(name, others if not place else (SAMPLING,)):
                    continue
                self.named[id(part)] = f"network {name}"
                for each, weight in _tensors(part):
                    key = f"{name}.{each}".lstrip(".")
                    if not key.endswith(UNFILLED):
                        found[key] = _sampled(kept.get(key, weight))
        return self.all("weights", found)

    def _bypass(self, hook: BypassForwardHook) -> bytes:
        """Its adapter as ComfyUI casts it when it samples, before and after."""
        held = getattr(getattr(hook.module, "weight", None), "dtype", None)
        plain = held in (torch.float32, torch.float16, torch.bfloat16)
        weights = [
            each.to(held) if plain and isinstance(each, torch.Tensor) else each
            for each in hook.adapter.weights
        ]
        return self.all("bypass", hook.module, hook.multiplier, type(hook.adapter), weights)


def _under(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _tensors(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Its own parameters and buffers, but those that no file holds."""
    made = module._non_persistent_buffers_set
    buffers = [(name, each) for name, each in module._buffers.items() if name not in made]
    held = [*module._parameters.items(), *buffers]
    return [(name, each) for name, each in held if each is not None]


def _sampled(weight: torch.Tensor) -> tuple[str, tuple[int, ...], dict[str, torch.Tensor]]:
    """Dtype, shape, and some values as they are held: of a quantised weight, of all its parts."""
    parts = weight.state_dict() if isinstance(weight, QuantizedTensor) else {"": weight}
    return str(weight.dtype), tuple(weight.shape), {n: _some(each) for n, each in parts.items()}


def _some(held: torch.Tensor) -> torch.Tensor:
    flat = held.detach().reshape(-1)
    count = min(SAMPLES, len(flat))
    places = torch.linspace(0, max(len(flat) - 1, 0), count, dtype=torch.float64).long()
    return flat[places].float()
