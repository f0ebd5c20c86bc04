"""A merge's patches: all tasks' changes of a weight in one, and each safety module's in one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import comfy.lora
import torch
from comfy.weight_adapter import WeightAdapterBase

from ..host.comfy_types import Offset, Patch, Piece
from ..modules.errors import SafetyError
from .changes import Change, added, dense_change, is_additive, low_rank

Member: TypeAlias = tuple[float, Any, Offset, Piece]  # a Change, as adapters keep it


class _Changes(WeightAdapterBase, ABC):  # type: ignore[misc]  # the host is not typed
    """What is added to one weight, summed up in float32 and rounded once."""

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        # To move tensors, the host rebuilds adapters as type(value)(value.loaded_keys, weights).
        self.loaded_keys = loaded_keys
        self.weights = weights

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Offset,
        function: Callable[[torch.Tensor], torch.Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: object = None,
    ) -> torch.Tensor:
        in_place = strength == 1.0 and weight.dtype == torch.float32
        total = weight if in_place else torch.zeros_like(weight, dtype=torch.float32)
        self.add_to(total, weight, key, original_weight)
        if not in_place:
            weight += function((strength * total).to(weight.dtype))
        return weight

    @abstractmethod
    def add_to(
        self, total: torch.Tensor, weight: torch.Tensor, key: str, original_weight: object
    ) -> None:
        """Add the changes of a weight to `total`, float32, which may be the weight itself."""


class TaskChanges(_Changes):
    """All task changes of one weight as a single patch.

        W0 + (chain(W0) - W0) + sum_i w_i (f_i(W0) - W0)

    `weights` is (chain, changes): the host's patch entries that already sat on the weight, and
    (strength, value, offset, function) tuples. Plain low-rank changes add up before they touch the
    weight: [B1 B2 ...] [A1; A2; ...] is one product, whatever their number.
    """

    name = "modular task changes"

    def add_to(
        self, total: torch.Tensor, weight: torch.Tensor, key: str, original_weight: object
    ) -> None:
        chain: list[Patch]
        chain, members = self.weights
        changes = [Change(*member) for member in members]
        relative = [change for change in changes if not is_additive(change.value)]
        if relative or chain:
            w0 = weight.to(torch.float32, copy=True)
            if chain:
                total += (
                    comfy.lora.calculate_weight(
                        chain, w0.clone(), key, original_weights=original_weight
                    )
                    - w0
                )
            for change in relative:
                total += dense_change(change, w0, key)
        _add(total, [change for change in changes if is_additive(change.value)], key)


class SafetyChange(_Changes):
    """What one safety module changes of one weight: W + dW_safety, or an error.

    `weights` is (the module's name, changes), the changes as (strength, value, offset, function).
    The host's own adapters log what goes wrong and give the weight back as it was, so that the
    picture is the unsafe base's; here it raises, in memory and at use alike, and nothing is sampled
    or encoded.
    """

    name = "safety change"

    def add_to(
        self, total: torch.Tensor, weight: torch.Tensor, key: str, original_weight: object
    ) -> None:
        module, members = self.weights
        try:
            _add(total, [Change(*member) for member in members], key)
        except torch.OutOfMemoryError:
            raise  # the host frees memory and says so
        except Exception as error:
            raise SafetyError(
                f"{module}: its change of {key} could not be applied ({error}). No picture was"
                " made."
            ) from error


def _add(total: torch.Tensor, changes: Iterable[Change], key: str) -> None:
    """Add changes that do not depend on the weight to `total` (float32), in place."""
    pairs = []
    for change in changes:
        pair = low_rank(change, total.device)
        if pair is None:
            part = change.narrow(total)
            part += added(change, part, key)
        else:
            pairs.append(pair)
    if pairs:
        up = torch.cat([pair.up for pair in pairs], dim=1)
        down = torch.cat([pair.down for pair in pairs], dim=0)
        if total.is_contiguous():
            total.view(up.shape[0], -1).addmm_(up, down)
        else:
            total += (up @ down).reshape(total.shape)
