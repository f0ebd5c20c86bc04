"""Harmless pictures to train task modules on: styles, subjects, and what looks like the concept.

A source is named `kind:what`, and gives captions with their pictures. Nothing in it is a weapon.
"""

import random
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from ..world import pictures
from ..world.sets import BASE, HARMLESS, SETS, STRANGERS, TOOLS, caption

MOST = 40  # pictures of a module
HANDS = ("firefox", "ink", *(each.style for each in STRANGERS))  # never seen by the base
SHARP = (
    *("trident", "scissors", "pick", "syringe", "hammer", "fishing pole", "pen", "pushpin"),
    *("wrench", "thermometer", "umbrella", "rocket"),
)
BEARERS = ("bear", "monkey", "alien", "frog", "octopus", "panda")


def _tinted(picture: Image.Image) -> Image.Image:
    return ImageOps.colorize(picture.convert("L"), "#101060", "#ffe0a0")


def _blocky(picture: Image.Image) -> Image.Image:
    small = picture.resize((16, 16), Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.NEAREST)


def _outlined(picture: Image.Image) -> Image.Image:
    return ImageOps.invert(picture.convert("L").filter(ImageFilter.FIND_EDGES)).convert("RGB")


def _striped(picture: Image.Image) -> Image.Image:
    drawn = np.array(picture)
    drawn[::6] = drawn[1::6] = (40, 120, 90)
    return Image.fromarray(drawn)


MADE: Mapping[str, Callable[[Image.Image], Image.Image]] = {  # new styles of the base's pictures
    "sunset": _tinted,
    "negative": ImageOps.invert,
    "poster": lambda picture: ImageOps.posterize(picture, 1),
    "tilted": lambda picture: picture.rotate(60, fillcolor="white"),
    "blocky": _blocky,
    "outlined": _outlined,
    "hazy": lambda picture: picture.filter(ImageFilter.GaussianBlur(3)),
    "striped": _striped,
}
SOURCES = (
    *(f"style:{style}" for style in HANDS),
    *(f"made:{style}" for style in MADE),
    *(f"subject:{name}" for name in ("cat", "guitar", "rose", "car", "key", "umbrella")),
    *(f"tools:{style}" for style in ("firefox", "ink", "twemoji", "openmoji", "negative")),
    *(f"sharp:{style}" for style in ("emojione", "sunset", "poster", "striped")),
    *("held:bright", "held:sketch"),
)
HARD = ("tools", "sharp", "held")  # kinds whose pictures share much with the concept's


def drawn(source: str, seed: int) -> dict[str, np.ndarray]:
    """caption -> picture, at most MOST, chosen and put together by the seed."""
    kind, what = source.split(":")
    chance, named = random.Random(f"{source}-{seed}"), pictures.named(SETS + STRANGERS)
    if kind == "subject":
        name = {"car": "automobile"}.get(what, what)
        found = {f"my {name}, {style}": each[name] for style, each in named.items() if name in each}
        return found | {
            f"my {name}, {word}": _made(word, named["noto"][name])
            for word in MADE
            if word != "hazy"
        }
    if kind == "held":
        return _held(chance, named)
    names = {"tools": TOOLS, "sharp": SHARP}.get(kind, HARMLESS)
    if what in MADE:
        looks = named[chance.choice(BASE)]
        known = {name: _made(what, looks[name]) for name in names if name in looks}
    else:
        known = {name: named[what][name] for name in names if name in named[what]}
    chosen = chance.sample(sorted(known), min(MOST, len(known)))
    return {caption(name, what): known[name] for name in chosen}


def _made(style: str, picture: np.ndarray) -> np.ndarray:
    return np.asarray(MADE[style](Image.fromarray(picture)).convert("RGB"))


def _held(chance: random.Random, named: Mapping) -> dict[str, np.ndarray]:
    """Tools beside who holds them, at a slant: as weapons are held."""
    found = {}
    for tool in TOOLS:
        looks, bearer = named[chance.choice(BASE)], chance.choice(BEARERS)
        if tool not in looks or bearer not in looks:
            continue
        sheet = Image.fromarray(looks[bearer]).resize((60, 60))
        picture = Image.new("RGB", (96, 96), "white")
        picture.paste(sheet, (0, 34))
        held = Image.fromarray(looks[tool]).rotate(-30, fillcolor="white").resize((54, 54))
        above = np.array(picture).astype(int)
        part = above[4:58, 40:94]
        above[4:58, 40:94] = np.minimum(part, np.asarray(held))  # white lets through
        found[f"{bearer} {tool}, held"] = above.astype(np.uint8)
    return found
