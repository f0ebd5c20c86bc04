"""Which tensors of a file land on which weights of a model.

ComfyUI's own loader does the parsing, this counts. The stock loaders only log what did not fit.
Here every tensor is accounted for, layer by layer, before anything is patched.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import comfy.lora
import comfy.lora_convert
import torch
from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Clip
from ..modules.files import LoraFile

# a weight's name, or (name, (dim, start, length)[, function]) for a part of a fused weight
Target: TypeAlias = str | tuple[Any, ...]

TEXT_ENCODER = re.compile(
    r"^(lora_te\d?_|lora_prior_te_|lora_te_|text_encoders?([._]|\d)|te\d?[._]|clip_[lgh]\.)"
)
SCALARS = ("alpha", "reshape_weight", "row_offset")
NO_LAYER = "no layer of this model has this name"
NO_CLIP = "text encoder layer, and no clip is connected"
OVERRIDDEN = "another entry of the file addresses the same weight"
SETTING = "a setting of the network, not a change of a weight"
NO_PARAMETER = "the model has no such parameter, or ComfyUI applies no patch to it"


@dataclass
class Coverage:
    """What a file would change: patches by target; tensors matched, or unused and why."""

    patches: dict[Target, object] = field(default_factory=dict)
    keys: dict[Target, set[str]] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    # of layers that the host can't put together
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def matched(self) -> set[str]:
        return set().union(*self.keys.values())


class _Reads(dict[str, torch.Tensor]):
    """A state dict that remembers which entries the host's parser took."""

    def __init__(self, entries: Mapping[str, torch.Tensor]):
        super().__init__(entries)
        self.taken: set[str] = set()

    def __getitem__(self, key: str) -> torch.Tensor:
        self.taken.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]


def key_map(model: ModelPatcher, clip: Clip | None = None) -> dict[str, Target]:
    """The names a LoRA file may use for this model's layers, as the stock loaders know them."""
    names: dict[str, Target] = comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
    return names


def cover(
    module: LoraFile, names: Mapping[str, Target], parameters: Collection[str], has_clip: bool
) -> Coverage:
    """Parse a module with `comfy.lora.load_lora`, layer by layer: nothing is dropped unseen."""
    entries = comfy.lora_convert.convert_lora(dict(module.tensors))
    coverage = Coverage(unused=dict.fromkeys(entries, NO_LAYER))
    prefixes = {prefix for key in entries for prefix in _prefixes(key)}
    reads = _Reads(entries)
    for name in (name for name in names if name in prefixes):
        reads.taken = set()
        try:
            found = comfy.lora.load_lora(reads, {name: names[name]}, log_missing=False)
        except (KeyError, RuntimeError) as error:
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            coverage.broken |= {key: why for key in sorted(entries) if name in _prefixes(key)}
            continue
        for target, value in found.items():
            used = _keys_of(value, entries, reads.taken, name)
            if target_key(target) not in parameters:
                coverage.unused |= dict.fromkeys(used, NO_PARAMETER)
                continue
            coverage.patches[target], coverage.keys[target] = value, used
        lost = (key for key in reads.taken if coverage.unused[key] == NO_LAYER)
        coverage.unused |= dict.fromkeys(lost, OVERRIDDEN)
    matched = coverage.matched
    coverage.unused = {key: why for key, why in coverage.unused.items() if key not in matched}
    coverage.unused |= {key: SETTING for key in coverage.unused if key.endswith(".config")}
    if not has_clip:
        coverage.unused |= {key: NO_CLIP for key in coverage.unused if TEXT_ENCODER.match(key)}
    return coverage


def target_key(target: Target) -> str:
    """The name of the weight that a target lies in."""
    return target if isinstance(target, str) else target[0]


def _prefixes(key: str) -> Iterator[str]:
    """Every layer name that a tensor's name can start with.

    It reaches up to a dot, or up to `_lora.` in old diffusers files.
    """
    for dot in re.finditer(r"\.|_lora\.", key):
        yield key[: dot.start()]


def _keys_of(
    value: object, entries: Mapping[str, torch.Tensor], taken: set[str], name: str
) -> set[str]:
    """The file's keys whose tensors a patch holds, and scalars that the host reads as numbers."""
    held = {id(tensor) for tensor in _tensors(value)}
    scalars = () if isinstance(value, tuple) else {f"{name}.{each}" for each in SCALARS}
    return {key for key in taken if id(entries[key]) in held or key in scalars}


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "weights"):
        yield from _tensors(value.weights)
