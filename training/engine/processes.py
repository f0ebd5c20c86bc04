"""One run on several processes: each computes its share of every batch, and all take the same step.

The batch size counts the pictures of all processes together, and every random number is drawn for
the whole batch, so a run on two processes is the run on one, up to the order of a sum. Hugging Face
Accelerate starts and connects them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

Items = TypeVar("Items", torch.Tensor, Sequence[int])
Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """The part of one process in a run; by itself, a run on this process alone."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    def of(self, items: Items) -> Items:
        """This process's slice of something with an entry for each picture of a batch."""
        size = len(items) // self.count
        return items[self.rank * size : (self.rank + 1) * size]

    def check(self, batch_size: int) -> None:
        """Raise ValueError unless a batch can be shared evenly."""
        if batch_size % self.count:
            raise ValueError(
                f"The batch size {batch_size} can't be shared by {self.count} processes: it counts"
                f" the pictures of all of them. Use a multiple of {self.count}."
            )

    def mean(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace float32 tensors of one device by their mean over processes, in one message."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        for tensor, part in zip(
            tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True
        ):
            tensor.detach().copy_(part.reshape(tensor.shape))

    def any(self, here: bool) -> bool:
        """Whether something is so in any process."""
        if self.count == 1:
            return here
        return any(self.gather(here))

    def gather(self, here: Item) -> list[Item]:
        """What each process has, in their order."""
        if self.count == 1:
            return [here]
        everywhere: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(everywhere, here)
        return everywhere


ALONE = Share()


def enter() -> Share:
    """This process's share, as Accelerate or torchrun started it; before ComfyUI takes a device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from accelerate import PartialState

    # sets the device of this process, and connects it
    state = PartialState(cpu=not torch.cuda.is_available())
    return Share(state.process_index, state.num_processes)
