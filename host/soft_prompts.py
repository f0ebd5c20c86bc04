"""Soft prompts: encoded prompts that go along a gradient, each by a stride of its own size."""

from collections.abc import Sequence

import torch

from .comfy_types import Conditioning
from .gradients import NO_WAY, NoGradient

UNUSED = "not have been used in the graph"


class SoftPrompts:
    """Some encoded prompts, each with a difference to it, from 0.

    Each is float32 and its own: what a node encoded may not be part of a graph.
    """

    def __init__(self, encoded: Sequence[Conditioning]):
        self._texts = [(each[0][0].to(torch.float32, copy=True), each[0][1]) for each in encoded]
        self._moves = [torch.zeros_like(text) for text, _ in self._texts]

    def taking_gradients(self) -> list[Conditioning]:
        """The prompts where they are now, for `gradients` of what comes of them."""
        self._moves = [move.detach().requires_grad_() for move in self._moves]
        return self.encoded()

    def encoded(self) -> list[Conditioning]:
        """The prompts where they are now."""
        both = zip(self._texts, self._moves, strict=True)
        return [[(text + move, dict(about))] for (text, about), move in both]

    def go(self, gain: torch.Tensor, stride: float) -> None:
        """Let each go up the gradient of a scalar, by `stride` of its size, whatever the slope's.

        Raises NoGradient for a network that autograd does not go through.
        """
        try:
            slopes = torch.autograd.grad(gain, self._moves)
        except RuntimeError as error:
            if any(words in str(error) for words in (*NO_WAY, UNUSED)):
                raise NoGradient(str(error).splitlines()[0]) from error
            raise
        for number, ((text, _), slope) in enumerate(zip(self._texts, slopes, strict=True)):
            size = slope.norm()
            way = slope / size if size > 0 else slope
            self._moves[number] = self._moves[number].detach() + stride * text.norm() * way
