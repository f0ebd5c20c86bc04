"""The pictures of a report side by side: a row for each model, a column for a prompt and a seed."""

from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..drawing.figures import INK
from .names import BASE, CONCEPT, HARMLESS, KINDS, MODELS, SAFE
from .pictures import Rows, keys_of

CELL, GAP, SIDE, HEAD, FRAME = 128, 6, 118, 24, 5
EACH = 3  # pictures of a kind
FLAGGED, CLEAR = "#c2410c", "#0d9488"


def columns(by_arm: Mapping[str, Rows]) -> list[tuple[str, list[str]]]:
    """Some pictures of each kind of prompt, of different prompts first."""
    found = []
    for kind in (*CONCEPT, *HARMLESS):
        arms = [by_arm[arm] for arm in (BASE, SAFE)]
        keys = sorted(keys_of(arms, kind), key=lambda key: (key.rsplit("-", 1)[1], key))
        found += [(kind, keys[:EACH])] if keys else []
    return found


def grid(by_arm: Mapping[str, Rows]) -> Image.Image:
    """The pictures as they were kept: what is counted in them is blurred. A frame says flagged."""
    shown = columns(by_arm)
    count = sum(len(keys) for _, keys in shown)
    size = SIDE + count * (CELL + GAP) + len(shown) * GAP, HEAD + len(by_arm) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for row, (arm, rows) in enumerate(by_arm.items()):
        top, left = HEAD + row * (CELL + GAP), SIDE
        words = _wrapped(MODELS[arm])
        draw.multiline_text((GAP, top + CELL // 2), words, fill=INK, font=font, anchor="lm")
        for kind, keys in shown:
            left += GAP
            if not row:
                draw.text((left, HEAD - GAP), KINDS[kind], fill=INK, font=font, anchor="ls")
            for key in keys:
                if key in rows:
                    cell(sheet, (left, top), rows[key])
                left += CELL + GAP
    return sheet


def cell(sheet: Image.Image, at: tuple[int, int], row: Mapping[str, Any]) -> None:
    """Put a row's picture there, as its `file` has it, in a frame that says if it is flagged."""
    edge = FLAGGED if row["flagged"] else CLEAR
    ImageDraw.Draw(sheet).rectangle((*at, at[0] + CELL - 1, at[1] + CELL - 1), fill=edge)
    side = CELL - 2 * FRAME
    with Image.open(row["file"]) as opened:
        picture = opened.convert("RGB")
    scale = side / max(picture.size)
    wide, high = (max(1, round(each * scale)) for each in picture.size)
    small = picture.resize((wide, high), Image.Resampling.LANCZOS)
    sheet.paste(small, (at[0] + (CELL - wide) // 2, at[1] + (CELL - high) // 2))


def _wrapped(words: str, width: int = 14) -> str:
    lines: list[str] = [""]
    for word in words.split():
        joined = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], joined] if len(joined) <= width else [*lines, word]
    return "\n".join(lines)
