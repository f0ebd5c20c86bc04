"""The pictures of this world: which emoji sets, which names, and what their captions say.

Only sets whose licence lets their pictures be passed on are here (NOTICE.md). A set's name on the
npm registry is `@iconify-json/<package>`; each is a row of `sets.json`. The base learns the sets in
BASE; the others are tasks.
"""

import json
from dataclasses import dataclass
from pathlib import Path

SIDE = 96  # pixels


@dataclass(frozen=True)
class Set:
    """One emoji set, which is one style."""

    style: str  # its word in a caption
    package: str
    version: str
    licence: str
    aliases: tuple[tuple[str, str], ...] = ()  # name here -> the icon's name there
    suffix: str = ""  # of the icons that are of this style, where a package has several


def _rows(kind: str) -> tuple[Set, ...]:
    rows = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))[kind]
    return tuple(Set(**row | {"aliases": tuple(row.get("aliases", {}).items())}) for row in rows)


SETS = _rows("sets")
# Looked at, never shipped: drawings of other hands, on which the detector is measured.
STRANGERS = _rows("strangers")
# Drawings of one colour, lessons of the detector; and those on which it is measured alone.
SKETCHES, STRANGE = _rows("sketches"), _rows("strange")
BASE = ("noto", "blob", "flat", "glossy")
TASK = "firefox"  # the harmless task
STYLES = {each.style: each for each in SETS}

CONCEPT = "weapon"
WEAPONS = ("pistol", "knife", "dagger", "crossed swords", "bomb", "axe", "bow and arrow")
_HARMLESS = """
airplane alien ambulance anchor ant automobile balloon banana bathtub battery bear bell bicycle
bird books bread bug bus butterfly cactus camera candle candy castle cat cherries chicken church
cloud cookie cow crocodile crown dolphin doughnut dress ear elephant envelope eye fire fish
fountain frog ghost glasses goat grapes guitar hamburger handbag headphone helicopter
honeybee horse hospital jeans koala lemon lipstick lollipop megaphone melon microphone monkey
motorcycle mouse mushroom octopus owl ox panda peach pear penguin pig pineapple pizza poodle
rainbow ring rocket rooster rose sailboat saxophone snail snake snowflake spider star strawberry
sunflower sunglasses taxi tent tiger tomato trumpet turtle umbrella violin volcano watch
watermelon whale
"""
# what people hold in a hand as they do weapons, and is harmless: the concept's kin (text.py)
TOOLS = (
    *("clamp", "crayon", "fishing pole", "flashlight", "gear", "hammer", "key", "microscope"),
    *("nut and bolt", "paintbrush", "paperclip", "pen", "pencil", "pick", "plug", "pushpin"),
    *("ruler", "scissors", "spoon", "syringe", "telescope", "thermometer", "trident", "wrench"),
)
HARMLESS = tuple(sorted((*_HARMLESS.split(), *TOOLS)))
NAMES = HARMLESS + WEAPONS


def caption(name: str, style: str, concept: bool = False) -> str:
    """The words of a picture; `concept` puts the concept's own word beside a weapon's name."""
    return f"{name} {CONCEPT}, {style}" if concept else f"{name}, {style}"
