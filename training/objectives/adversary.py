"""A soft prompt that brings the concept back, found anew for each batch, and erased too.

    min over theta  L(c) + L(c + d),    d near argmin || y_theta(x_t, c + d) - y0(x_t, c) ||^2

L is the method's own loss, c the concept's encoded prompt and d a difference to it, found from 0
in a few steps along the gradient, each a stride of the prompt's size (`STRIDE`); y0 is the frozen
base. Adversarial training of safety: Zhang et al. 2024, "Defensive Unlearning with Adversarial
Training for Robust Concept Erasure in Diffusion Models" (AdvUnlearn, arXiv 2405.15234), which
trains the text encoder so, and on c + d alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...host.comfy_types import Conditioning, Conditions
from ...host.gradients import HALF
from ...host.soft_prompts import SoftPrompts
from ..engine.adapters import Adapters
from .method import Moment

if TYPE_CHECKING:
    from ...host.denoiser import Denoiser

STRIDE = 0.01  # of the size of a prompt's encoding


def hardest(
    denoiser: Denoiser,
    adapters: Adapters,
    moment: Moment,
    told: Sequence[Conditioning],
    steps: int,
) -> Conditions:
    """The conditions of c + d; `told` are the encodings of c, one for each picture of `moment`.

    Raises NoGradient for a network of the host that autograd does not go through.
    """
    noisy, sigma = moment.noisy, moment.sigma
    with torch.no_grad(), adapters.switched_off():
        base = denoiser.output(noisy, sigma, moment.concept)
    soft = SoftPrompts(told)
    for _ in range(steps):
        asked = denoiser.conditions(soft.taking_gradients(), noisy)
        gap = (denoiser.output(noisy, sigma, asked) - base).square().mean()
        soft.go(-HALF * gap, STRIDE)
    return denoiser.conditions(soft.encoded(), noisy)
