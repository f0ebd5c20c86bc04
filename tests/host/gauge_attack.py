"""A task module made without training that undoes a safety module and keeps its weights' numbers.

Attention has a symmetry: per head, W_k -> M W_k and W_q -> M^-T W_q give the same scores, W_v -> N
W_v and W_out -> W_out N^-1 the same sum. Where queries and keys are normalised the first is none.
Streams that attend to each other share an N. The base so written lies as near to the safe model as
one likes, in the direction of the safety change, and draws what the base draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import merging
import torch
from modular_safety_lora.host.weights import loaded_weight
from modular_safety_lora.modules.files import LoraFile

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
    biases: Mapping[str, torch.Tensor],
    changes: Mapping[str, torch.Tensor],
    heads: Sequence[Sequence[Part]],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The base in other words, by weight: as far along each safety change as `WANTED` asks.

    The biases by the same layers are those of what the matrices act on from the left.
    """
    size = next(part.rows.stop - part.rows.start for part in heads[0])
    turns = {name: torch.zeros(len(heads), size, size, requires_grad=True) for name in "MN"}
    steps = torch.optim.Adam(turns.values(), RATE)

    def written(some: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        made = {key: value.clone() for key, value in some.items()}
        matrices = {name: torch.eye(size) + each for name, each in turns.items()}
        back = {name: torch.linalg.inv(torch.eye(size) + each) for name, each in turns.items()}
        for place, parts in enumerate(heads):
            for part in parts:
                if part.key not in some:
                    continue
                value, rows = some[part.key], part.rows
                if part.how == "N^-1":
                    if value.ndim > 1:
                        made[part.key][:, rows] = value[:, rows] @ back["N"][place]
                elif part.how == "M^-T":
                    made[part.key][rows] = back["M"][place].T @ value[rows]
                else:
                    made[part.key][rows] = matrices[part.how][place] @ value[rows]
        return made

    for _ in range(STEPS):
        made = written(weights)
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
        return written(weights), written(biases)


def task(base, safe, heads: Sequence[Sequence[Part]], name: str = "gauge.safetensors") -> LoraFile:
    """The task module: from the safe model, a patched clone of the base, to the base so written."""
    layers = sorted({part.key for parts in heads for part in parts})
    held = {layer: merging.base(base, layer) for layer in layers}
    offsets = {layer: loaded_weight(base, key) for layer, key in _biases(base, layers).items()}
    changes = {
        layer: merging.effective(safe, layer) - value.float()
        for layer, value in held.items()
        if f"diffusion_model.{layer}.weight" in safe.patches
    }
    with torch.inference_mode(False), torch.enable_grad():
        found = (
            {key: value.float().clone() for key, value in each.items()}
            for each in (held, offsets, changes)
        )
        held, offsets, changes = found
        made, moved = gauged(held, offsets, changes, heads)
    tensors = {
        f"diffusion_model.{layer}.diff": made[layer] - held[layer] - changes.get(layer, 0.0)
        for layer in layers
    }
    tensors |= {f"diffusion_model.{key}.diff_b": moved[key] - offsets[key] for key in moved}
    return merging.task(tensors, name)


def _biases(base, layers: Sequence[str]) -> dict[str, str]:
    keys = {layer: f"diffusion_model.{layer}.bias" for layer in layers}
    there = base.model.state_dict().keys()
    return {layer: key for layer, key in keys.items() if key in there}


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


def _values(key: str, wide: int, size: int, head: int) -> Part:
    """The rows of a head's values where one weight makes queries, keys and values."""
    return Part(key, slice(2 * wide + head * size, 2 * wide + (head + 1) * size), "N")


def _out(key: str, size: int, head: int) -> Part:
    return Part(key, slice(head * size, (head + 1) * size), "N^-1")


def flux_heads(network) -> list[list[Part]]:
    """The heads of all attention of a Flux: of both streams, and of the single blocks."""
    wide, heads = network.hidden_size, network.num_heads
    size, found = wide // heads, []
    for place in range(len(network.double_blocks)):
        streams = [f"double_blocks.{place}.{name}_attn" for name in ("img", "txt")]
        found += [_joint(streams, wide, size, head) for head in range(heads)]
    for place in range(len(network.single_blocks)):
        name = f"single_blocks.{place}.linear"
        found += [
            [_values(f"{name}1", wide, size, head), _out(f"{name}2", size, head)]
            for head in range(heads)
        ]
    return found


def joint_heads(network) -> list[list[Part]]:
    """The heads of all attention of SD3's joint blocks; the last one's text goes nowhere."""
    found = []
    for place, block in enumerate(network.joint_blocks):
        attention = block.x_block.attn
        streams = [f"joint_blocks.{place}.{name}_block.attn" for name in ("x", "context")]
        wide = attention.qkv.in_features
        size = wide // attention.num_heads
        for head in range(attention.num_heads):
            parts = _joint(streams, wide, size, head)
            found.append([part for part in parts if _is_there(network, part.key)])
    return found


def _joint(streams: Sequence[str], wide: int, size: int, head: int) -> list[Part]:
    found = [_values(f"{name}.qkv", wide, size, head) for name in streams]
    return found + [_out(f"{name}.proj", size, head) for name in streams]


def _is_there(network, key: str) -> bool:
    return f"{key}.weight" in network.state_dict()
