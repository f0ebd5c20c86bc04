"""The objective SDD (Kim et al. 2023).

The paper is "Towards Safe Self-Distillation of Internet-Scale Text-to-Image Diffusion Models". The
loss is

    || y(z_t, c) - stopgrad y(z_t, null) ||^2

on pictures z_t of the concept c that the teacher half-made, a moving average of the student; the
target is the student's own unconditional output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..targets import of_roles, reading
from .method import Conditions, Moment

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser
    from ..engine.adapters import Adapters
    from ..settings import Erasure
    from ..targets import Roles


def sdd_loss(
    denoiser: Denoiser,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    concept: Conditions,
    null: Conditions,
) -> torch.Tensor:
    """SDD's equation 4. Shapes: noisy (B, C, ...), sigma (B,). Returns a scalar."""
    with torch.no_grad():
        target = denoiser.output(noisy, sigma, null)
    return (denoiser.output(noisy, sigma, concept) - target).square().mean()


class Sdd:
    name = "sdd"
    words = "towards the model's own unconditional output, with a moving average"
    averaged = True

    def layers(self, network: torch.nn.Module, roles: Roles) -> list[str]:
        return of_roles(network, roles, reading(roles))

    def loss(
        self, denoiser: Denoiser, adapters: Adapters, moment: Moment, erasure: Erasure
    ) -> torch.Tensor:
        return sdd_loss(denoiser, moment.noisy, moment.sigma, moment.concept, moment.null)


METHOD = Sdd()
