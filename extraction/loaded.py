"""The base that a safe model is compared with, as it was loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from comfy.model_patcher import ModelPatcher
from comfy.utils import get_attr

from ..host.comfy_types import Clip
from ..host.lending import check_unpatched
from ..host.weights import check_patcher, loaded_weight, patchable
from ..options.words import amount

NETWORK = "diffusion_model."  # its weights in a MODEL; a CLIP's have no prefix


@dataclass(frozen=True)
class Loaded:
    """A MODEL and its CLIP, straight from their loaders.

    Raises ValueError for patches on them, and for quantised weights.
    """

    model: ModelPatcher
    clip: Clip

    def __post_init__(self) -> None:
        for patcher in (self.model, self.clip.patcher):
            check_patcher(patcher)
            check_unpatched(patcher)
        quantised = [key for key in self.network if self._quantised(key)]
        if quantised:
            raise ValueError(
                f"The base is held quantised, {len(quantised)} of"
                f" {amount(len(self.network), 'weight')} (first: {min(quantised)}), which takes"
                " more than most safe models' change. Load it in bf16 or fp16 here; the safety LoRA"
                " works on the quantised base too."
            )

    @cached_property
    def sizes(self) -> Mapping[str, torch.Size]:
        """The shapes of all weights, by name."""
        held = {key: each.shape for key, each in self.clip.patcher.model.state_dict().items()}
        own = self.model.model.state_dict()
        return held | {key: own[key].shape for key in own if key.startswith(NETWORK)}

    @cached_property
    def network(self) -> frozenset[str]:
        """The weights of the diffusion model that ComfyUI patches."""
        return frozenset(key for key in patchable(self.model.model) if key.startswith(NETWORK))

    @cached_property
    def patched(self) -> frozenset[str]:
        """All weights that ComfyUI patches."""
        return self.network | frozenset(patchable(self.clip.patcher.model))

    def patcher_of(self, key: str) -> ModelPatcher:
        return self.model if key.startswith(NETWORK) else self.clip.patcher

    def like(self, key: str) -> torch.Tensor:
        """A tensor of a weight's shape, without values."""
        return torch.empty(self.sizes[key], device="meta")

    def w0(self, key: str) -> torch.Tensor:
        """The loaded weight as a float32 copy on the load device."""
        return loaded_weight(self.patcher_of(key), key)

    def held(self, key: str) -> torch.dtype:
        """What the base holds a weight in."""
        dtype: torch.dtype = get_attr(self.patcher_of(key).model, key).dtype
        return dtype

    def _quantised(self, key: str) -> bool:
        module = get_attr(self.model.model, key.rpartition(".")[0])
        return bool(getattr(module, "quant_format", None))
