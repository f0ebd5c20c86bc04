"""Prior preservation (Ruiz et al. 2022, "DreamBooth"): pictures of what must stay as it is.

    prior_weight * || y(x_t, c) - y* ||^2

on pictures of another dataset, drawn at random from one of its buckets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .task import Denoising

if TYPE_CHECKING:
    from ..engine.loop import Batch


class Prior(Denoising):
    def of(self, batch: Batch) -> torch.Tensor:
        """The weighted loss of as many prior pictures as the batch has."""
        dataset = self.dataset
        bucket = dataset.bucket_of(
            int(torch.randint(len(dataset.latents), (1,), generator=batch.noise))
        )
        pictures = [bucket[number] for number in batch.integers(len(bucket))]
        return self.settings.prior_weight * self.loss(pictures, self.drawn(pictures, batch))
