"""Whose pictures are whose in two sources: those of one name, made of one prompt and seed."""

from dataclasses import dataclass

from ...options.language import phrase
from .looking import Seen
from .sources import Picture

UNLIKE = phrase("another prompt, seed or size there")
ALONE = phrase("no partner there")


@dataclass(frozen=True)
class Pairs:
    """The places of partners, (in the first, in the second), and names without one, by reason."""

    places: list[tuple[int, int]]
    left_out: dict[str, list[str]]


def pairs(first: Seen, second: Seen) -> Pairs:
    """The partners of two sources. What is not known of one of two pictures tells nothing."""
    there = {each.name: place for place, each in enumerate(second.pictures)}
    found: list[tuple[int, int]] = []
    left_out: dict[str, list[str]] = {UNLIKE: [], ALONE: []}
    for place, picture in enumerate(first.pictures):
        other = there.get(picture.name)
        if other is None:
            left_out[ALONE].append(picture.name)
        elif _unlike(picture, second.pictures[other]):
            left_out[UNLIKE].append(picture.name)
        else:
            found.append((place, other))
    return Pairs(found, {why: names for why, names in left_out.items() if names})


def _unlike(one: Picture, other: Picture) -> bool:
    return any(
        a != b and a is not None and b is not None
        for a, b in zip(one.made_as, other.made_as, strict=True)
    )
