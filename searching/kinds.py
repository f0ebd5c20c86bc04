"""What stands before a prompt: rows (k, C) for each text encoder, and how they are searched for.

CLIP's text encoders share a vocabulary, so that one row of tokens is for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..host.prefixes import Prefix


class Chance:
    """Tokens drawn by chance, others for each picture: what so many tries find without a search."""

    def __init__(self, vocabularies: Mapping[str, torch.Tensor], count: int, seed: int):
        self.vocabularies = vocabularies
        self.words = len(next(iter(vocabularies.values())))
        self.generator = torch.Generator().manual_seed(seed)
        self.count = count
        self.values: list[torch.Tensor] = []  # what learns; nothing here
        self.drawn = self.draw()

    def draw(self) -> torch.Tensor:
        return torch.randint(self.words, (self.count,), generator=self.generator)

    def begin(self) -> None:
        """Before each noise level."""
        self.drawn = self.draw()

    def rows(self) -> Prefix:
        """What stands before the prompt in one iteration, with gradients to `values`."""
        return self.found()

    def step(self, slopes: Sequence[torch.Tensor]) -> None:
        """A step against the gradients of `values`."""

    def found(self) -> Prefix:
        """What stands before the prompt when a picture is made."""
        return self.of(torch.tensor(self.tokens()))

    def tokens(self) -> list[int]:
        """The numbers of the tokens that are found; none where no tokens are searched."""
        return self.drawn.tolist()

    def of(self, tokens: torch.Tensor) -> Prefix:
        return {name: each[tokens.to(each.device)] for name, each in self.vocabularies.items()}


class Tokens(Chance):
    """UnlearnDiffAtk's search, over probabilities u (k, words) of the vocabulary's tokens.

    In each iteration a token is drawn from each row of u; its gradient, cut to -1..1, goes to u as
    it is (straight through). Then comes a step of Adam, with a rate of 0.01 and weight decay of 0.1
    (`optimizer`), and u is put back on the simplex. The likeliest tokens are what is found.
    """

    RATE, DECAY = 0.01, 0.1

    def __init__(self, vocabularies: Mapping[str, torch.Tensor], count: int, seed: int):
        super().__init__(vocabularies, count, seed)
        self.values = [torch.full((count, self.words), 1.0 / self.words, requires_grad=True)]
        self.optimizer = torch.optim.Adam(self.values, lr=self.RATE, weight_decay=self.DECAY)

    def begin(self) -> None:
        """What was learned goes on."""

    def rows(self) -> Prefix:
        drawn = torch.multinomial(self.values[0].detach(), 1, generator=self.generator)
        one_hot = _Drawn.apply(self.values[0], drawn)
        return {name: one_hot.to(each.device) @ each for name, each in self.vocabularies.items()}

    def step(self, slopes: Sequence[torch.Tensor]) -> None:
        _step(self.optimizer, self.values, slopes)
        self.values[0].data = on_simplex(self.values[0].detach())

    def tokens(self) -> list[int]:
        return self.values[0].detach().argmax(dim=1).tolist()


class Embedding(Chance):
    """Numbers that no token has: they start from tokens drawn by chance, and learn by Adam.

    The rate counts in the root mean square of the encoder's vocabulary.
    """

    RATE = 0.1

    def __init__(self, vocabularies: Mapping[str, torch.Tensor], count: int, seed: int):
        super().__init__(vocabularies, count, seed)
        start = self.of(self.drawn)
        self.values = [each.clone().requires_grad_() for each in start.values()]
        sizes = [each.square().mean().sqrt().item() for each in vocabularies.values()]
        groups = [
            {"params": [value], "lr": self.RATE * size}
            for value, size in zip(self.values, sizes, strict=True)
        ]
        self.optimizer = torch.optim.Adam(groups)

    def begin(self) -> None:
        """What was learned goes on."""

    def rows(self) -> Prefix:
        return dict(zip(self.vocabularies, self.values, strict=True))

    def step(self, slopes: Sequence[torch.Tensor]) -> None:
        _step(self.optimizer, self.values, slopes)

    def found(self) -> Prefix:
        return {name: each.detach().clone() for name, each in self.rows().items()}

    def tokens(self) -> list[int]:
        return []


KINDS: dict[str, type[Chance]] = {"tokens": Tokens, "embedding": Embedding, "chance": Chance}


def _step(
    optimizer: torch.optim.Optimizer,
    values: Sequence[torch.Tensor],
    slopes: Sequence[torch.Tensor],
) -> None:
    for value, slope in zip(values, slopes, strict=True):
        value.grad = slope
    optimizer.step()


class _Drawn(torch.autograd.Function):
    """One-hot rows of the tokens that were drawn; their gradient goes on as it is, cut to -1..1."""

    @staticmethod
    def forward(ctx: Any, chances: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(chances).scatter_(1, drawn, 1.0)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None]:
        return slopes[0].clamp(-1.0, 1.0), None


def on_simplex(values: torch.Tensor) -> torch.Tensor:
    """The nearest rows (k, n) that are >= 0 and sum to 1 (Duchi et al. 2008)."""
    falling, _ = values.sort(dim=1, descending=True)
    over = falling.cumsum(dim=1) - 1.0
    count = torch.arange(1, values.shape[1] + 1, device=values.device)
    last = (falling * count > over).sum(dim=1, keepdim=True) - 1
    return (values - over.gather(1, last) / (last + 1)).clamp(min=0.0)
