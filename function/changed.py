"""How much a model changes what a base computes of prompts.

    |d_m(x, p) - d_b(x, p)| / |d_b(x, p)|,  d(x, p) = y(x, p) - y(x, "")

of each prompt p, on a picture x of it that the base half-made; d_m is the changed model's. 0:
nothing was changed; 1: as much as all that the prompt says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Conditioning
from .inputs import Ask
from .network import AT_ONCE, CountForwards, Pictures, directions, empty_of, half_made, outputs

LEVEL, SEED = 0.8, 1  # of the noise schedule, where a layout is decided; of the noise
TOGETHER = AT_ONCE // 2  # pictures that are half made in a batch, each with the empty prompt
Texts = Mapping[str, Conditioning]


def silent(forwards: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True)
class Before:
    """Half-made pictures, one of each prompt, and the base's d there."""

    asks: Sequence[Ask]
    pictures: Pictures
    directions: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: ModelPatcher,
        texts: Texts,
        prompts: Sequence[str],
        resolution: int,
        step: CountForwards = silent,
    ) -> "Before":
        """What a base makes of prompts. `texts` holds their conditionings and that of ""."""
        asks = [Ask(each, LEVEL, SEED, (each,)) for each in prompts]
        empty = empty_of(model, resolution)
        some = [asks[place : place + TOGETHER] for place in range(0, len(asks), TOGETHER)]
        made = [half_made(model, each, texts, empty, step) for each in some]
        noisy, sigma = zip(*made, strict=True)
        pictures = torch.cat(noisy), torch.cat(sigma)
        return cls(asks, pictures, directions(outputs(model, asks, texts, pictures, step), asks))

    @torch.no_grad()
    def changed(
        self, model: ModelPatcher, texts: Texts, step: CountForwards = silent
    ) -> list[float]:
        """The formula above for each prompt; not finite where the base makes nothing of it."""
        after = directions(outputs(model, self.asks, texts, self.pictures, step), self.asks)
        change, size = (
            each.flatten(1).norm(dim=1) for each in (after - self.directions, self.directions)
        )
        found: list[float] = (change / size).tolist()
        return found
