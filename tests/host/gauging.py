"""A task module made without training that undoes a safety module and keeps its weights' numbers.

Attention has a symmetry: per head, W_k -> M W_k and W_q -> M^-T W_q give the same scores, W_v -> N
W_v and W_out -> W_out N^-1 the same sum. The base so written lies as near to the safe model as one
likes, in the direction of the safety change, and draws what the base draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import merging
import torch
from modular_safety_lora.modules.files import Module

STEPS, RATE = 80, 0.02
WANTED = 1.05  # of every weight's safety change


@dataclass(frozen=True)
class Part:
    """Rows or columns of a weight that one head's matrix acts on, and as what.

    `how` is one of M, M^-T (both from the left, for keys and queries), N, N^-1.
    """

    key: str
    rows: slice
    how: str


def gauged(
    weights: Mapping[str, torch.Tensor],
    changes: Mapping[str, torch.Tensor],
    heads: Sequence[Sequence[Part]],
) -> dict[str, torch.Tensor]:
    """The base in other words, by weight: as far along each safety change as `WANTED` asks."""
    size = next(part.rows.stop - part.rows.start for part in heads[0])
    turns = {name: torch.zeros(len(heads), size, size, requires_grad=True) for name in "MN"}
    steps = torch.optim.Adam(turns.values(), RATE)

    def written() -> dict[str, torch.Tensor]:
        made = {key: value.clone() for key, value in weights.items()}
        matrices = {name: torch.eye(size) + each for name, each in turns.items()}
        back = {name: torch.linalg.inv(torch.eye(size) + each) for name, each in turns.items()}
        for place, parts in enumerate(heads):
            for part in parts:
                value, rows = weights[part.key], part.rows
                if part.how == "N^-1":
                    made[part.key][:, rows] = value[:, rows] @ back["N"][place]
                elif part.how == "M^-T":
                    made[part.key][rows] = back["M"][place].T @ value[rows]
                else:
                    made[part.key][rows] = matrices[part.how][place] @ value[rows]
        return made

    for _ in range(STEPS):
        made = written()
        loss = sum(
            (made[key] - value).square().sum() / value.square().sum()
            for key, value in weights.items()
        )
        for key, change in changes.items():
            along = ((made[key] - weights[key]) * change).sum() / change.square().sum()
            loss = loss + 10.0 * torch.relu(WANTED - along).square()
        steps.zero_grad()
        loss.backward()
        steps.step()
    with torch.no_grad():
        return {key: value.detach() for key, value in written().items()}


def task(base, deltas: Mapping[str, torch.Tensor], heads: Sequence[Sequence[Part]]) -> Module:
    """The task module: from the safe model to the base in other words; deltas by layer."""
    layers = {part.key for parts in heads for part in parts}
    weights = {layer: merging.base(base, layer) for layer in layers}
    with torch.inference_mode(False), torch.enable_grad():
        weights = {layer: value.clone() for layer, value in weights.items()}
        held = {layer: deltas[layer].float().clone() for layer in layers & deltas.keys()}
        made = gauged(weights, held, heads)
    tensors = {
        f"diffusion_model.{layer}.diff": made[layer] - weights[layer] - held.get(layer, 0.0)
        for layer in sorted(layers)
    }
    return merging.task(tensors, "gauge.safetensors")


def unet_heads(network, layer: str) -> list[list[Part]]:
    """The heads of one attention of a UNet (SD1.5, SDXL)."""
    attention = network.get_submodule(layer)
    wide = attention.dim_head
    return [
        [
            Part(f"{layer}.to_k", slice(head * wide, (head + 1) * wide), "M"),
            Part(f"{layer}.to_q", slice(head * wide, (head + 1) * wide), "M^-T"),
            Part(f"{layer}.to_v", slice(head * wide, (head + 1) * wide), "N"),
            Part(f"{layer}.to_out.0", slice(head * wide, (head + 1) * wide), "N^-1"),
        ]
        for head in range(attention.heads)
    ]
