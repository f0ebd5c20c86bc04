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
    from ..targets import Roles

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

    def layers(self, network: torch.nn.Module, roles: Roles) -> list[str]:
        """The names of the layers that it trains."""

    def loss(
        self, denoiser: Denoiser, adapters: Adapters, moment: Moment, erasure: Erasure
    ) -> torch.Tensor:
        """The loss of a batch, a scalar."""
