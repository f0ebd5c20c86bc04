"""What a way to erase a concept is: its layers, its loss, and who makes its training pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser
    from ..engine.adapters import Adapters
    from ..settings import Erasure

Conditions = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Moment:
    """Half-made pictures of the concept.

    `noisy` is x_t (B, C, ...), `sigma` (B,); `concept` and `null` are the concept's conditions and
    the empty text's.
    """

    noisy: torch.Tensor
    sigma: torch.Tensor
    concept: Conditions
    null: Conditions


class Method(Protocol):
    """One way to erase.

    `words` say in a sentence what it does; with `averaged` a moving average of the adapters
    half-makes the pictures, and is what is saved.
    """

    name: str
    words: str
    averaged: bool

    def layers(self, network: torch.nn.Module) -> list[str]:
        """The names of the layers that it trains."""

    def loss(
        self, denoiser: Denoiser, adapters: Adapters, moment: Moment, erasure: Erasure
    ) -> torch.Tensor:
        """The loss of a batch, a scalar."""


def linear_layers(network: torch.nn.Module) -> list[str]:
    """The names of all linear layers and convolutions."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]


def cross_attention(network: torch.nn.Module) -> list[str]:
    """The layers of cross-attention (attn2).

    Models without attn2 (Flux, SD3) attend to text and picture together: there all attention is
    meant.
    """
    layers = linear_layers(network)
    return [name for name in layers if "attn2" in name] or [
        name for name in layers if "attn" in name
    ]
