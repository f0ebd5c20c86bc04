"""Weight changes, each against the loaded weight: dW_i = f_i(W0) - W0.

"Safety Alignment Backfires" (arXiv 2412.00357) adds modules that were trained apart, each against
the base weights. ComfyUI applies patches to the running weight, which is the same for plain
low-rank changes and not for DoRA, OFT, BOFT and GLoRA. Here every change sees W0, so the order of
the modules does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.lora
import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoHaAdapter, LoKrAdapter, LoRAAdapter, WeightAdapterBase

from ..host.comfy_types import Offset, Piece
from ..modules.errors import SafetyError, ShapeMismatch

# Where each adapter keeps its DoRA scale: with one, the change depends on the weight it sees.
_DORA_AT = {LoRAAdapter: 4, LoHaAdapter: 7, LoKrAdapter: 8}
_RESHAPE_AT = 5


@dataclass(frozen=True)
class Change:
    """strength * (f(W0) - W0) for one weight, or a part of it.

    `value` is the host's own parsed patch: one of its adapters, or (kind, tensors).
    """

    strength: float
    value: Any
    offset: Offset = None
    function: Piece = None

    def narrow(self, weight: torch.Tensor) -> torch.Tensor:
        return weight if self.offset is None else weight.narrow(*self.offset)


@dataclass(frozen=True)
class LowRank:
    """A change as up @ down in float32: up (out, rank) with every scale in it, down (rank, in)."""

    up: torch.Tensor
    down: torch.Tensor


def is_additive(value: Any) -> bool:
    """Whether f(W) - W is the same for every W: it may be added to a weight that others changed."""
    if isinstance(value, WeightAdapterBase):
        at = _DORA_AT.get(type(value))
        return at is not None and value.weights[at] is None
    return bool(value[0] == "diff")


def low_rank(change: Change, device: torch.device) -> LowRank | None:
    """The two factors of a plain LoRA on a whole weight; None for every other kind of change."""
    value = change.value
    plain = type(value) is LoRAAdapter and change.offset is None and change.function is None
    if not plain or any(
        value.weights[at] is not None for at in (3, _DORA_AT[LoRAAdapter], _RESHAPE_AT)
    ):
        return None
    up, down, alpha = value.weights[:3]
    scale = change.strength * (1.0 if alpha is None else alpha / down.shape[0])
    up, down = (factor.flatten(1).to(device, torch.float32) for factor in (up, down))
    return LowRank(up * scale, down)


def check_shape(change: Change, shape: torch.Size) -> None:
    """Raise ShapeMismatch unless a low-rank or full change fits a weight of this shape.

    Other kinds of change are tried on the weight.
    """
    shape = change.narrow(torch.empty(shape, device="meta")).shape
    value = change.value
    if isinstance(value, tuple) and value[1][0].shape != shape:
        raise ShapeMismatch(f"{tuple(value[1][0].shape)} on a weight of {tuple(shape)}")
    if type(value) is LoRAAdapter:
        up, down = value.weights[0].shape, value.weights[1].shape
        if value.weights[_RESHAPE_AT] is not None:
            raise ShapeMismatch(
                f"it turns a weight of {tuple(shape)} into {tuple(value.weights[_RESHAPE_AT])}"
            )
        width = shape[1:].numel() if value.weights[3] is None else down[1:].numel()
        if up[0] != shape[0] or up[1:].numel() != down[0] or down[1:].numel() != width:
            raise ShapeMismatch(f"{tuple(up)} x {tuple(down)} on a weight of {tuple(shape)}")
    dora = value.weights[_DORA_AT[type(value)]] if type(value) in _DORA_AT else None
    if dora is not None and not _scales(dora.shape, shape):
        raise ShapeMismatch(f"a DoRA scale of {tuple(dora.shape)} on a weight of {tuple(shape)}")


def dense_change(change: Change, w0: torch.Tensor, key: str) -> torch.Tensor:
    """strength * (f(W0) - W0) as a float32 tensor of W0's shape, by the host's own arithmetic.

    Raises ShapeMismatch when the host could not apply it: it only logs that, and leaves the weight
    as it was.
    """
    check_shape(change, w0.shape)
    whole = torch.zeros_like(w0)
    place = change.narrow(whole)
    if is_additive(change.value):
        place.copy_(added(change, place, key))
    else:
        part = change.narrow(w0)
        place.copy_(_by_the_host(change, part.clone(), key)[0].sub_(part)).mul_(change.strength)
    return whole


def added(change: Change, like: torch.Tensor, key: str) -> torch.Tensor:
    """What the host would add to its part of a weight for an additive change, with its strength."""
    if change.strength == 0.0:
        return torch.zeros_like(like)
    _, difference = _by_the_host(change, torch.zeros_like(like), key)
    if difference is None:
        raise ShapeMismatch("it sets the weight, and adds nothing to it")
    return change.strength * difference


def fixed(change: Change, size: LowRank | torch.Tensor) -> Change:
    """A safety change as it is whatever the weight: one that depends on it is that against W0."""
    if isinstance(size, LowRank) or is_additive(change.value):
        return change
    return Change(1.0, ("diff", (size.cpu(),)))


def existing_change(patcher: ModelPatcher, key: str, w0: torch.Tensor) -> LowRank | torch.Tensor:
    """What already sits on a weight, against W0: low-rank if it is one plain LoRA, else dense.

    Raises SafetyError where it makes a weight of another shape.
    """
    chain = patcher.patches[key]
    shape = tuple(comfy.lora.calculate_shape(chain, w0, key))
    if shape != w0.shape:
        raise SafetyError(
            f"A LoRA on this model changes the shape of {key} from {tuple(w0.shape)} to {shape}, so"
            " its change can't be measured. Remove its loader before Modular Merge (Flux control"
            " LoRAs do this)."
        )
    strength, value, strength_model, offset, function = chain[0]
    if len(chain) == 1 and strength_model == 1.0 and not isinstance(value, list | tuple):
        size = low_rank(Change(strength, value, offset, function), w0.device)
        if size is not None:
            return size
    whole: torch.Tensor = comfy.lora.calculate_weight(chain, w0.clone(), key)
    return whole - w0


def summed(parts: Sequence[LowRank | torch.Tensor], w0: torch.Tensor) -> torch.Tensor:
    """Several changes of one weight as one dense tensor of W0's shape."""
    total = torch.zeros_like(w0)
    for part in parts:
        total += (part.up @ part.down).reshape(w0.shape) if isinstance(part, LowRank) else part
    return total


def _by_the_host(
    change: Change, weight: torch.Tensor, key: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """f(weight) by ComfyUI at strength 1, and the difference that it handed over on the way.

    `weight` is written over. The host's adapters catch every error, log it and give the weight back
    as it was: here that is a ShapeMismatch.
    """
    handed: list[torch.Tensor] = []

    def seen(diff: torch.Tensor) -> torch.Tensor:
        handed.append(diff if change.function is None else change.function(diff))
        return handed[-1]

    shape = weight.shape
    try:
        after = comfy.lora.calculate_weight([(1.0, change.value, 1.0, None, seen)], weight, key)
    except (RuntimeError, AttributeError, UnboundLocalError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ShapeMismatch(f"{error} (a weight of {tuple(shape)})") from error
    is_set = isinstance(change.value, tuple) and change.value[0] == "set"
    if not (handed or is_set) or any(tensor.shape != shape for tensor in (after, *handed)):
        raise ShapeMismatch(
            f"ComfyUI could not apply it to a weight of {tuple(shape)}; see ComfyUI's log"
        )
    return after, handed[-1] if handed else None


def _scales(dora: torch.Size, shape: torch.Size) -> bool:
    """Whether a DoRA scale broadcasts to a weight, over its outputs or its inputs."""
    try:
        fits: bool = torch.broadcast_shapes(dora, shape) == shape
        return fits and (dora[0] == shape[0] or dora[1] == shape[1])
    except (RuntimeError, IndexError):
        return False
