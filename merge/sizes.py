"""How large the tensors get that a change is put together from, before any of them is made."""

from collections.abc import Callable
from typing import Any

import comfy.lora
import torch
from comfy.weight_adapter import BOFTAdapter, LoRAAdapter, OFTAdapter, WeightAdapterBase
from torch.utils._python_dispatch import TorchDispatchMode

from ..modules.errors import ShapeMismatch
from .changes import Change

LIMIT = 4  # times the weight or the largest tensor of the file for it, whichever is larger
# a number in OFT and BOFT above which the host looks at values, which shapes have none of
_BOUND_AT = 2
_CORE_AT = 3  # of a LoRA with a core tensor between its factors


def check_size(change: Change, shape: torch.Size) -> None:
    """Raise ShapeMismatch for a change that needs tensors far larger than the weight.

    Factors of a few megabytes can stand for terabytes (a Kronecker product, a core tensor). The
    host's own arithmetic runs on shapes alone; what else is wrong with a change is found when it is
    tried.
    """
    plain = isinstance(change.value, LoRAAdapter) and change.value.weights[_CORE_AT] is None
    if plain or not isinstance(change.value, WeightAdapterBase):
        return  # `check_shape` says what they are
    weight = change.narrow(torch.empty(shape, device="meta"))
    value = _shapes_of(change.value)
    own = max((each.numel() for each in value.weights if isinstance(each, torch.Tensor)), default=0)
    sizes = _Sizes(LIMIT * max(weight.numel(), own))
    try:
        with sizes:
            comfy.lora.calculate_weight([(1.0, value, 1.0, None, change.function)], weight, "")
    except Exception:  # what does not fit together is told when it is tried
        if not sizes.largest:
            return
    if sizes.largest:
        raise ShapeMismatch(
            f"it needs a tensor of {sizes.largest:.3g} values for a weight of {tuple(shape)},"
            f" which has {shape.numel():.3g}"
        )


def _shapes_of(value: WeightAdapterBase) -> WeightAdapterBase:
    """The adapter with tensors that have shapes and no values."""
    weights = [
        torch.empty(each.shape, dtype=torch.float32, device="meta")
        if isinstance(each, torch.Tensor)
        else each
        for each in value.weights
    ]
    if isinstance(value, OFTAdapter | BOFTAdapter):
        weights[_BOUND_AT] = 0.0
    return type(value)(value.loaded_keys, tuple(weights))


class _Sizes(TorchDispatchMode):
    """Ends what makes a tensor of more than so many values, and keeps how many it has."""

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.limit, self.largest = limit, 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor) and each.numel() > self.limit:
                self.largest = each.numel()
                raise ShapeMismatch(f"a tensor of {each.numel()} values")
        return made
