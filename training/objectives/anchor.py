"""The anchor: while a task trains beside a safety module, the concept stays where it was put.

    lambda || [y(x_t, c) - y(x_t, null)] with the task change - the same without it ||^2

The safety module, which put it there, is in the forward pass, frozen. The anchor is computed in
every third step or so and then weighs as much as one in each: regularising lazily costs a fraction
(StyleGAN2, Karras et al. 2020, appendix B, does it for its path lengths).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ...host.denoiser import Conditioning, Denoiser
    from ..engine.adapters import Adapters
    from ..engine.loop import Batch
    from ..settings import Settings
    from .task import Drawn


def anchor_loss(
    denoiser: Denoiser,
    adapters: Adapters,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    both: dict[str, torch.Tensor],
) -> torch.Tensor:
    """The formula above without lambda; a scalar.

    `both` are the conditions of 2 B pictures: one of the concept's prompts for each of the noisy
    latents (B, C, H, W), then the empty prompt for each.
    """
    size = len(noisy)
    twice = (torch.cat([noisy, noisy]), torch.cat([sigma, sigma]), both)

    def direction() -> torch.Tensor:
        output = denoiser.output(*twice)
        return output[:size] - output[size:]

    with torch.no_grad(), adapters.switched_off():
        held = direction()
    return (direction() - held).square().mean()


@dataclass(frozen=True)
class Anchor:
    """The anchor on the pictures of the task, for one of the concept's prompts at a time."""

    denoiser: Denoiser
    adapters: Adapters
    texts: Mapping[str, Conditioning]
    concepts: Sequence[str]
    settings: Settings

    def of(self, batch: Batch, drawn: Drawn) -> torch.Tensor | None:
        """The weighted anchor of a batch; None in a step that has none."""
        weight = self.settings.anchor_weight(batch.step)
        if not weight:
            return None
        clean, size = drawn.clean, len(drawn.clean)
        chosen = self.concepts[int(torch.randint(len(self.concepts), (1,), generator=batch.noise))]
        both = self.denoiser.conditions(
            [self.texts[chosen]] * size + [self.texts[""]] * size, clean
        )
        noisy = self.denoiser.noised(clean, drawn.noise, drawn.sigma)
        return weight * anchor_loss(self.denoiser, self.adapters, noisy, drawn.sigma, both)
