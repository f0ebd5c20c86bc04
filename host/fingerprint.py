"""A digest of a model, its text encoder and its VAE as they are.

With it no run goes on with another model.
"""

from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher, get_key_weight
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


def fingerprint(model, clip, vae) -> Fingerprint:
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


class _OfModels(Digest):
    """Of what hangs on models: their networks are named, once their weights are in the digest."""

    def special(self, value) -> bytes | None:
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
        others = (SAMPLING, *own)  # other objects may stand there now
        found = {
            name: patches[0][0]
            for name, patches in patcher.get_key_patches().items()
            if not _under(name, others)
        }
        parts = [(name, each) for name, each in patcher.model.named_modules() if name]
        parts = [(name, each) for name, each in parts if not _under(name, others)]
        for place, module in own.items():
            if place != SAMPLING:
                weights = ((name, get_key_weight(module, name)[0]) for name in module.state_dict())
                found |= {f"{place}.{name}": weight for name, weight in weights}
                parts += [(f"{place}.{name}", each) for name, each in module.named_modules()]
        self.named |= {id(module): f"network {name.rstrip('.')}" for name, module in parts}
        self.named[id(patcher.model)] = "network"
        sampled = {
            name: (str(weight.dtype), tuple(weight.shape), _some(weight))
            for name, weight in found.items()
            if not name.endswith(UNFILLED)
        }
        return self.all("weights", sampled)

    def _bypass(self, hook: BypassForwardHook) -> bytes:
        """Its adapter as ComfyUI casts it when it samples, before and after."""
        held = getattr(getattr(hook.module, "weight", None), "dtype", None)
        plain = held in (torch.float32, torch.float16, torch.bfloat16)
        weights = [
            each.to(held) if plain and isinstance(each, torch.Tensor) else each
            for each in hook.adapter.weights
        ]
        return self.all("bypass", hook.module, hook.multiplier, type(hook.adapter), weights)


def _under(name: str, places) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _some(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.detach().reshape(-1)
    places = torch.linspace(
        0, max(len(flat) - 1, 0), min(SAMPLES, len(flat)), dtype=torch.float64
    ).long()
    return flat[places].float()
