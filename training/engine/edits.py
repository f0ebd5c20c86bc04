"""The change that a map makes of the layers that read one input, as a LoRA for each of them.

    dW = W0 (T - I)

With T - I = B A of the least rank that holds it (extraction/change.py), every layer has the same A,
and W0 B. A layer with fewer rows or columns than that rank has its whole change as one factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...extraction.change import low_rank
from ...extraction.settings import SHARE, Extraction
from .groups import NETWORK, Group, weight_of

# of the map's change, squared: what falls below is how its sums were rounded
HELD = Extraction(SHARE, keep=0.999999, precision="fp32")
NOTHING = 1e-9  # |T - I|^2 for each of its rows


@dataclass(frozen=True)
class Edit:
    """One layer's change: up (out, r) and down (r, in), float32; |dW|^2, and |dW - up down|^2."""

    layer: str
    up: torch.Tensor
    down: torch.Tensor
    square: float
    lost: float

    @property
    def rank(self) -> int:
        return len(self.down)

    @property
    def count(self) -> int:
        """How many numbers the file holds of it."""
        return self.up.numel() + self.down.numel()

    def tensors(self) -> dict[str, torch.Tensor]:
        """As `Adapters.tensors` names them."""
        alpha = torch.tensor(float(self.rank))
        found = {"lora_A.weight": self.down, "lora_B.weight": self.up, "alpha": alpha}
        return {f"{NETWORK}{self.layer}.{part}": value for part, value in found.items()}


def edits_of(
    patcher: ModelPatcher, groups: Sequence[Group], maps: Sequence[torch.Tensor]
) -> list[Edit]:
    """The change of every layer by its group's map.

    Raises ValueError where the maps are not finite, and where they change nothing.
    """
    if not all(each.isfinite().all() for each in maps):
        raise ValueError("The formula has no finite solution for these prompts. Retain fewer.")
    found = []
    for group, each in zip(groups, maps, strict=True):
        moved = each - group.sums.identity
        if moved.square().sum() > NOTHING * len(moved):
            factors = low_rank(moved.float(), HELD)
            found += [
                _edit(patcher, layer, group, moved.float(), factors) for layer in group.layers
            ]
    if not found:
        raise ValueError(
            "The formula changes nothing: to this model the concept's prompts and what is drawn in"
            " their place are the same. Write another surrogate."
        )
    return found


def _edit(
    patcher: ModelPatcher,
    layer: str,
    group: Group,
    moved: torch.Tensor,
    factors: tuple[torch.Tensor, torch.Tensor] | None,
) -> Edit:
    w0 = weight_of(patcher, layer)
    used = w0[:, group.filled]
    change = used @ moved  # (out, filled)
    if factors is None or len(factors[1]) >= min(change.shape):
        one = torch.eye(min(change.shape))
        up, few = (one, change) if len(change) <= change.shape[1] else (change, one)
    else:
        up, few = used @ factors[0], factors[1]
    down = torch.zeros(len(few), w0.shape[1])
    down[:, group.filled] = few
    lost = (change - up @ few).double().square().sum().item()
    return Edit(layer, up.contiguous(), down, change.double().square().sum().item(), lost)


def told_of(edits: Sequence[Edit]) -> dict[str, Any]:
    """JSON-ready: the ranks, the least, the middle and the largest, and the share that is kept."""
    ranks = sorted(each.rank for each in edits)
    kept = 1.0 - sum(each.lost for each in edits) / sum(each.square for each in edits)
    return {"ranks": [ranks[0], ranks[len(ranks) // 2], ranks[-1]], "kept": float(f"{kept:.7g}")}


def metadata_of(edits: Sequence[Edit]) -> Mapping[str, str]:
    """What tools show of a LoRA, in place of what a trained one says."""
    rank = str(max(each.rank for each in edits))
    return {"ss_network_dim": rank, "ss_network_alpha": rank, "ss_learning_rate": "0.0"}
