"""PEFT in float32 on weights that users hold in fp16, bf16 or fp8."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch


@contextlib.contextmanager
def seen_in_float32(layers: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Zeros in float32, which take no memory, in the place of the layers' weights for a block.

    PEFT makes an adapter in the dtype of the weight that it finds: what it drew would be rounded to
    that.
    """
    found = [(layer, layer._parameters.get("weight")) for layer in layers]
    held = [(layer, weight) for layer, weight in found if weight is not None]
    for layer, weight in held:
        zeros = torch.zeros((), device=weight.device).expand(weight.shape)
        layer.weight = torch.nn.Parameter(zeros, requires_grad=False)
    try:
        yield
    finally:
        for layer, weight in held:
            layer.weight = weight


@torch.no_grad()
def dora_in_float32(adapted: Any, name: str) -> None:
    """Start a layer's DoRA at the norms of the held weight, and compute with it in float32."""
    dora = adapted.lora_magnitude_vector[name]
    dora.weight.copy_(dora.get_weight_norm(_InFloat32(adapted.get_base_layer()).weight, 0.0, 0.0))
    dora.register_forward_pre_hook(_with_base_in_float32, with_kwargs=True)


def _with_base_in_float32(
    _module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return inputs, {**named, "base_layer": _InFloat32(named["base_layer"])}


class _InFloat32:
    """A layer as DoRA reads it: a tensor of it is float32, all else is the layer's own.

    It is not left in fp8, which has no sums.
    """

    def __init__(self, layer: torch.nn.Module):
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._layer, name)
        return value.detach().float() if isinstance(value, torch.Tensor) else value
