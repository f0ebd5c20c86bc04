"""Weights in few bytes: matrices as int8 with a scale a row, the rest in half precision."""

import torch

SCALE = ".scale"
LEAST = 2048  # numbers, below which a tensor is left in half precision


def packed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors to ship; a row's greatest number becomes 127."""
    found = {}
    for name, value in weights.items():
        if value.ndim < 2 or value.numel() < LEAST:
            found[name] = value.half()
            continue
        rows = value.float().flatten(1)
        scale = (rows.abs().amax(dim=1) / 127).clamp(min=1e-8)
        found[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape)
        found[name + SCALE] = scale
    return found


def unpacked(shipped: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `packed` was given, rounded, in single precision."""
    found = {}
    for name, value in shipped.items():
        if name.endswith(SCALE):
            continue
        found[name] = value.float()
        if value.dtype == torch.int8:
            found[name] *= shipped[name + SCALE].reshape(-1, *[1] * (value.ndim - 1))
    return found
