"""The long form: all prompts that are there, at more noise levels and seeds, for Probe Safety.

Later levels than these tell little: there a strong style damps whatever a prompt says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Conditioning
from .inputs import Ask, spread
from .network import STEP, CountForwards, Pictures, asked_prompts, directions, forwards, half_made

LEVELS = (0.9, 0.7, 0.8, 0.6)
# Forwards at half the side, each a quarter of one at the whole: 4 pictures of 20 steps.
PICTURES, STEPS, QUARTERS = 4, 20, 4
EACH = 8  # prompts asked of a picture
TOGETHER = 4  # pictures that are half made together, as the short form does


@dataclass(frozen=True)
class Group:
    """Prompts of one origin, such as those that a module was sealed with, and their noise."""

    prompts: tuple[str, ...]
    seeds: tuple[int, int]

    @classmethod
    def of(cls, prompts: Sequence[str], seed: int) -> "Group":
        """Two seeds of noise from one: of 0 those that the short form has."""
        return cls(tuple(dict.fromkeys(prompts)), (2 * seed + 1, 2 * seed + 2))


def long(groups: Sequence[Group], guided: bool, share: float = 1.0) -> list[Ask]:
    """Pictures of every group, each for some of its prompts, within a share of what is allowed.

    Every prompt is asked at each of four levels and both seeds where that fits; of more prompts
    each at some of them, and of very many those evenly between.
    """
    most = share * PICTURES * STEPS * (1 + guided) * QUARTERS
    groups = [each for each in groups if each.prompts]
    while True:
        for rounds in range(2 * len(LEVELS), 0, -1):
            asks = _all(groups, rounds)
            if cost(asks, guided) <= most:
                return asks
        groups = [
            Group(tuple(spread(each.prompts, max(1, len(each.prompts) * 9 // 10))), each.seeds)
            for each in groups
        ]
        if all(len(each.prompts) == 1 for each in groups):
            return _all(groups, 1)


def _all(groups: Sequence[Group], rounds: int) -> list[Ask]:
    asks: list[Ask] = []
    for each in groups:
        asks += _asked(each, rounds, len(asks))
    return asks


def _asked(group: Group, rounds: int, start: int) -> list[Ask]:
    """`rounds` pictures for each block of the prompts; blocks start at other levels and seeds."""
    count = -(-len(group.prompts) // EACH)
    blocks = [group.prompts[number::count] for number in range(count)]
    moments = [(level, seed) for seed in group.seeds for level in LEVELS]
    moments = [moments[(5 * place) % len(moments)] for place in range(len(moments))]
    asks = []
    for number, block in enumerate(blocks):
        for turn in range(rounds):
            level, seed = moments[(start + number * rounds + turn) % len(moments)]
            asks.append(Ask(block[turn % len(block)], level, seed, block))
    return asks


def cost(asks: Sequence[Ask], guided: bool) -> int:
    """Forwards at half the side of a measurement where nothing is kept, of all three models."""
    return sum(_way(each.level) for each in asks) * (1 + guided) + 3 * forwards(asks)


def _way(level: float) -> int:
    """Steps from noise to a level."""
    return round((1.0 - level) / STEP)


@torch.inference_mode()
def half_made_apart(
    model: ModelPatcher,
    asks: Sequence[Ask],
    texts: Mapping[str, Conditioning],
    empty: torch.Tensor,
    step: CountForwards,
) -> Pictures:
    """x (pictures, C, ...) and sigma (pictures,) as `half_made`, by level, a few at a time."""
    places: dict[float, list[int]] = {}
    for place, each in enumerate(asks):
        places.setdefault(each.level, []).append(place)
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for some in places.values():
        for start in range(0, len(some), TOGETHER):
            part = some[start : start + TOGETHER]
            made = half_made(model, [asks[place] for place in part], texts, empty, step)
            found |= {place: (x, sigma) for place, x, sigma in zip(part, *made, strict=True)}
    x, sigma = zip(*(found[place] for place in range(len(asks))), strict=True)
    return torch.stack(x), torch.stack(sigma)


def gains(y: torch.Tensor, base: torch.Tensor, asks: Sequence[Ask]) -> dict[str, float]:
    """<d, d_b> / |d_b|^2 of each prompt: how much of the concept a network draws, the base 1.

    `y` and `base` are as `outputs` gives them.
    """
    d, d_b = (directions(each, asks).flatten(1).double() for each in (y, base))
    dots, squares = (d * d_b).sum(1), d_b.square().sum(1)
    found = {}
    names = asked_prompts(asks)
    for prompt in dict.fromkeys(names):
        which = torch.tensor([each == prompt for each in names])
        found[prompt] = (dots[which].sum() / squares[which].sum()).item()
    return found
