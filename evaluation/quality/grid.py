"""The pairs that changed most as one picture; what is counted in them is blurred."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ...audit.pictures import Unreadable
from ...audit.thumbnails import SIDE, hidden
from ...drawing.figures import INK, short
from .looking import pixels_of
from .sources import Picture

ACROSS, MOST = 3, 12  # pairs in a row, and in all
GAP, HEAD, LINE = 8, 58, 26
NONE = "No pair of pictures to show: two runs of the same prompts are needed."


@dataclass(frozen=True)
class Pair:
    """A prompt's picture by the model measured against, and by the measured one."""

    name: str
    distance: float
    pictures: Sequence[Picture]


def grid(pairs: Sequence[Pair], names: Sequence[str]) -> Image.Image:
    """At most 12 pairs, what changed most first: left the model measured against.

    `names` are of the measured run and of the other.
    """
    large, small = ImageFont.load_default(size=20), ImageFont.load_default(size=15)
    shown = pairs[:MOST]
    rows = -(-len(shown) // ACROSS)
    wide = 2 * SIDE + 3 * GAP
    size = ACROSS * wide + GAP, HEAD + max(1, rows) * (SIDE + LINE + GAP)
    sheet = Image.new("RGB", size if shown else (size[0], HEAD), "white")
    draw = ImageDraw.Draw(sheet)
    if not shown:
        draw.text((GAP, GAP), NONE, fill=INK, font=large)
        return sheet
    draw.text((GAP, GAP), "What changed most", fill=INK, font=large)
    under = f"left {short(names[1], 32)}, right {short(names[0], 32)}; 0 is the same picture"
    draw.text((GAP, GAP + 26), under, fill=INK, font=small)
    for number, pair in enumerate(shown):
        left = GAP + number % ACROSS * wide
        top = HEAD + number // ACROSS * (SIDE + LINE + GAP)
        for place, picture in enumerate(pair.pictures):
            _put(sheet, (left + place * (SIDE + GAP // 2), top), picture)
        words = f"{pair.distance:.3f}  {short(pair.name, 40)}"
        draw.text((left, top + SIDE + 3), words, fill=INK, font=small)
    return sheet


def _put(sheet: Image.Image, at: tuple[int, int], picture: Picture) -> None:
    try:
        small = hidden(picture.row, pixels_of(picture))
    except (OSError, Unreadable):  # it was there a moment ago; the report has its number
        return
    place = at[0] + (SIDE - small.width) // 2, at[1] + (SIDE - small.height) // 2
    sheet.paste(small, place)
