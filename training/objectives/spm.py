"""SPM's loss (Lyu et al. 2024, "One-dimensional Adapter to Rule Them All", arXiv 2312.16145).

    || y(x_t, c) - ( y0(x_t, c*) - eta (y0(x_t, c) - y0(x_t, c*)) ) ||^2

on pictures x_t of the concept c that the student half-made, at every attention and feed-forward
layer; y0 is the frozen base. It is ESD's loss (esd_x.py) with the surrogate's prompt c* in place of
the empty one, which stays where no surrogate was told. The paper's latent anchoring is the retained
prompts (retain.py), and its adapters are of rank 1. What it does while sampling, scaling the change
by how near the prompt is to the concept, no weights can hold: it is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...host.structure import MLP, SELF
from ..engine.adapters import Adapters
from ..targets import Roles, of_roles, reading
from .esd_x import esd_loss
from .method import ErasureBase, Method, Moment

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser


def layers(network: torch.nn.Module, roles: Roles) -> list[str]:
    return of_roles(network, roles, (*reading(roles), SELF, MLP))


def loss(
    denoiser: Denoiser, adapters: Adapters, moment: Moment, erasure: ErasureBase
) -> torch.Tensor:
    about = (moment.noisy, moment.sigma, moment.concept)
    return esd_loss(denoiser, adapters, *about, null=moment.neutral, eta=erasure.eta)


METHOD = Method(
    "spm",
    "ESD on attention and feed-forward layers, past the surrogate where there is one",
    layers,
    loss,
    surrogates=True,
)
