"""Exponential moving average of the adapters: SDD's teacher, and a smoother task module."""

import contextlib
from collections.abc import Iterator, Mapping

import torch

from .adapters import Adapters


class Ema:
    """average <- decay * average + (1 - decay) * adapters, after each optimizer step."""

    def __init__(self, adapters: Adapters, decay: float):
        self.adapters, self.decay = adapters, decay
        self.average = {name: value.detach().clone() for name, value in adapters.parameters.items()}

    def restart(self) -> None:
        """Begin again at the adapters as they are."""
        for name, value in self.adapters.parameters.items():
            self.average[name].copy_(value.detach())

    def update(self) -> None:
        for name, value in self.adapters.parameters.items():
            self.average[name].lerp_(value.detach(), 1.0 - self.decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The averaged adapters in the model for a block."""
        own = {name: value.detach().clone() for name, value in self.adapters.parameters.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in self.adapters.parameters.items():
            value.data.copy_(values[name])
