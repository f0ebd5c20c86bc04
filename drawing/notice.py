"""The picture that stands where another one is withheld: an eye with a stroke, and words."""

import functools
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GROUND, LINE, QUIET = "#e9ecef", "#495057", "#6c757d"
TITLE = "Withheld"
WORDS = "This ComfyUI shows no such pictures."
UNKNOWN = "It could not be looked at."
OVER = 4  # drawn so many times larger: Pillow's lines have steps
LEAST = 9  # pixels of a letter's height; smaller ones are left out
LARGEST = 1024  # a larger notice is this one, scaled
# Pillow's own, with FreeType or without
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.lru_cache(maxsize=8)
def notice(width: int, height: int, words: str = WORDS) -> np.ndarray:
    """A plain notice, uint8 (height, width, 3): the same bytes for the same size and words.

    In a small one the words are left out, and then the title.
    """
    larger = max(width, height) / LARGEST
    if larger > 1:
        small = Image.fromarray(
            notice(max(1, round(width / larger)), max(1, round(height / larger)), words)
        )
        return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
    side = min(width, height)
    lines = _lines(width, side, words)
    middle = height / 2 - (0.12 * side if lines else 0)
    drawn = Image.new("RGB", (width * OVER, height * OVER), GROUND)
    _eye(ImageDraw.Draw(drawn), width * OVER / 2, middle * OVER, side * OVER)
    picture = drawn.resize((width, height), Image.Resampling.LANCZOS)
    draw, top = ImageDraw.Draw(picture), middle + 0.28 * side
    for text, size, colour in lines:
        draw.text((width / 2, top), text, fill=colour, font=_font(round(size)), anchor="mt")
        top += size * 1.7
    found = np.asarray(picture)
    found.setflags(write=False)  # it is kept
    return found


def _eye(draw: ImageDraw.ImageDraw, x: float, y: float, side: int) -> None:
    r = side * 0.17
    stroke = max(OVER, round(side * 0.02))
    # two arcs of circles that meet in the corners
    lift = r * 0.75
    outer = (r * r + lift * lift) / (2 * lift)
    half = np.degrees(np.arcsin(min(1.0, r / outer)))
    for centre, turn in ((y + outer - lift, 270), (y - outer + lift, 90)):
        box = (x - outer, centre - outer, x + outer, centre + outer)
        draw.arc(box, turn - half, turn + half, fill=LINE, width=stroke)
    iris = r * 0.36
    draw.ellipse((x - iris, y - iris, x + iris, y + iris), fill=LINE)
    ends = (x - r * 0.85, y + r * 0.95, x + r * 0.85, y - r * 0.95)
    for colour, thick in ((GROUND, 3 * stroke), (LINE, stroke)):
        draw.line(ends, fill=colour, width=thick)


def _lines(width: int, side: int, words: str) -> list[tuple[str, float, str]]:
    """The lines that can be read in a picture so large: text, size, colour."""
    lines = []
    for text, share, colour in ((TITLE, 0.085, LINE), (words, 0.042, QUIET)):
        size = share * side
        wide = _font(100).getlength(text) / 100 * size
        size *= min(1.0, 0.9 * width / wide)
        if round(size) < LEAST:
            break
        lines.append((text, size, colour))
    return lines


@functools.cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size=max(1, size))
