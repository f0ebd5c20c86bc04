"""One batch of a run: its pictures, where its noise comes from, and what a loss of it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .processes import ALONE, Share


@dataclass(frozen=True)
class Batch:
    """The pictures of a batch over all processes, this one's share, and its generator."""

    step: int
    pictures: Sequence[int]
    noise: torch.Generator
    share: Share = ALONE

    @property
    def mine(self) -> Sequence[int]:
        return self.share.of(self.pictures)

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """This process's share of the batch's normal noise (pictures, *shape), on the CPU."""
        return self.share.of(torch.randn(len(self.pictures), *shape, generator=self.noise))

    def integers(self, below: int) -> list[int]:
        """This process's share of one random number in 0..below-1 for each picture."""
        return self.share.of(
            torch.randint(below, (len(self.pictures),), generator=self.noise)
        ).tolist()


# the parts of the loss by name, scalars; their sum is trained
LossOf = Callable[[Batch], Mapping[str, torch.Tensor]]
