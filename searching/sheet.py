"""Pictures as told and with what was found, one above the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..drawing.figures import INK, short
from ..reporting.grid import CELL, GAP, cell

ACROSS, MOST, SIDE, HEAD, LINE = 6, 12, 96, 30, 22  # prompts in a row and in all; pixels
LETTERS = 19  # of a prompt, that a cell is wide
LABELS = ("as told", "with what\nwas found")
Row = Mapping[str, Any]


def sheet(pairs: Sequence[tuple[str, Row | None, Row | None]]) -> Image.Image:
    """At most 12 prompts: their pictures, as they were kept, or why there is none.

    A row has its picture's `file`, or `none`, the reason why not. A frame says flagged.
    """
    shown = pairs[:MOST]
    across, down = max(1, min(ACROSS, len(shown))), max(1, -(-len(shown) // ACROSS))
    block = len(LABELS) * (CELL + GAP) + LINE
    size = SIDE + across * (CELL + GAP), HEAD + down * block
    drawn = Image.new("RGB", size, "white")
    draw, font, small = ImageDraw.Draw(drawn), _font(15), _font(12)
    left_out = len(pairs) - len(shown)
    title = "Brought back first" + (f"; {left_out} more are on the page" if left_out else "")
    draw.text((GAP, GAP), title, fill=INK, font=font)
    for number, (prompt, *rows) in enumerate(shown):
        left = SIDE + number % ACROSS * (CELL + GAP)
        top = HEAD + number // ACROSS * block
        draw.text((left, top), short(prompt, LETTERS), fill=INK, font=small)
        for place, row in enumerate(rows):
            at = left, top + LINE + place * (CELL + GAP)
            if not number % ACROSS:
                middle = (GAP, at[1] + CELL // 2)
                draw.multiline_text(middle, LABELS[place], fill=INK, font=font, anchor="lm")
            if row and "file" in row:
                cell(drawn, at, row)
            else:
                words = "not kept" if row else "no picture"
                draw.rectangle((*at, at[0] + CELL - 1, at[1] + CELL - 1), outline=INK)
                draw.text((at[0] + CELL // 2, at[1] + CELL // 2), words, INK, small, anchor="mm")
    return drawn


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)
