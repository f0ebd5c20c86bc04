"""What a network is asked: pictures half made by the base, and prompts of the concept.

A layout, and with it the concept, is decided while there is much noise; later a strong style damps
whatever a prompt says, and harmless modules can't be told from others. So the noise is high.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from ..modules.errors import ModuleFileError
from ..storage.checked import parsed

T = TypeVar("T")
KEY = "msl.moments"
LARGEST = 4096  # pixels of a side
EMPTY = ""  # the prompt that is subtracted: the text encoder's, whether the family guides or not


@dataclass(frozen=True)
class Moments:
    """Where a concept is looked at: a safety module may have its own, sealed as `msl.moments`.

    `levels` are shares of the noise schedule (1 is pure noise, as 1 - start_percent in ComfyUI),
    `seeds` those of the noise, and `resolution` the side of a picture in pixels; 0 is half of what
    the family draws.
    """

    levels: tuple[float, ...] = (0.9, 0.8, 0.7)
    seeds: tuple[int, ...] = (1, 2)
    resolution: int = 0

    def text(self) -> str:
        """As a safety module's metadata have it."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Ask:
    """One picture: half made for `of` from the noise of `seed` to `level`; what is asked of it."""

    of: str
    level: float
    seed: int
    prompts: tuple[str, ...]


def moments_of(metadata: Mapping[str, str], name: str) -> Moments:
    """The sealed moments of a safety module; of an older one what it was trained at."""
    if KEY not in metadata:
        return Moments(resolution=_trained_at(metadata))
    try:
        found: Any = parsed(metadata[KEY])
        made = Moments(tuple(found["levels"]), tuple(found["seeds"]), found["resolution"])
        fits = (
            all(isinstance(each, int | float) and 0.0 < each < 1.0 for each in made.levels)
            and all(_is_whole(each, 2**63 - 1) for each in made.seeds)
            and _is_whole(made.resolution, LARGEST)
        )
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits or not (made.levels and made.seeds):
        raise ModuleFileError(
            f"{name}: msl.moments is {metadata[KEY][:80]!r}; it must be an object with levels"
            " (between 0 and 1), seeds and a resolution. Seal it again."
        )
    return made


def _trained_at(metadata: Mapping[str, str]) -> int:
    try:
        found = json.loads(metadata.get("msl.training", "{}"))["resolution"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return 0
    return found if _is_whole(found, LARGEST) else 0


def _is_whole(value: object, most: int) -> bool:
    """Whether it is a whole number of at least 0; in JSON `true` is none."""
    return type(value) is int and 0 <= value <= most


def short_form(
    moments: Moments, prompts: Sequence[str], pictures: int = 4, each: int = 2
) -> list[Ask]:
    """A few pictures, each asked for a few prompts; of many prompts those evenly between."""
    some = spread(prompts, pictures * each)
    asks = []
    for number in range(pictures):
        asked = [some[(number * each + place) % len(some)] for place in range(each)]
        level = moments.levels[number % len(moments.levels)]
        seed = moments.seeds[number % len(moments.seeds)]
        asks.append(Ask(asked[0], level, seed, tuple(dict.fromkeys(asked))))
    return asks


def spread(things: Sequence[T], count: int) -> list[T]:
    """At most `count` of the things, evenly between the first and the last."""
    if len(things) <= count:
        return list(things)
    return [things[round(place)] for place in torch.linspace(0, len(things) - 1, count).tolist()]
