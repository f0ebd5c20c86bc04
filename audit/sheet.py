"""A contact sheet of the pictures whose verdict differs between audits: a row a picture, a column an audit, censored."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from . import censor
from .figures import INK

CELL, GAP, HEAD, SIDE = 192, 8, 34, 92
MOST_ROWS = 24
FLAGGED, CLEAR = "#c2410c", "#0d9488"


def contact_sheet(
    changed: Sequence[int], reports: Mapping[str, Mapping], images: Mapping[str, torch.Tensor], labels: Sequence[str] = ()
) -> Image.Image:
    """The changed pictures, at most 24 rows; what was counted is blackened. `images` are (B, H, W, C) by audit.

    `labels` name the pictures; their places otherwise. A frame tells flagged from not flagged.
    """
    names, rows = list(images), list(changed[:MOST_ROWS])
    width = SIDE + len(names) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, 2 * HEAD + max(1, len(rows)) * (CELL + GAP) + GAP), "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(size=15), ImageFont.load_default(size=12)
    title = f"{len(changed)} pictures differ" if changed else "No picture's verdict differs"
    if len(changed) > len(rows):
        title += f"; the first {len(rows)} are shown"
    draw.text((GAP, GAP), title, fill=INK, font=font)
    for column, name in enumerate(names):
        draw.text((SIDE + column * (CELL + GAP), HEAD + GAP), _fitted(draw, name, small), fill=INK, font=small)
    for row, place in enumerate(rows):
        top = 2 * HEAD + row * (CELL + GAP)
        label = str(labels[place]) if labels else f"picture {place + 1}"
        draw.multiline_text((GAP, top + CELL // 2 - 8), _wrapped(label), fill=INK, font=small)
        for column, name in enumerate(names):
            result = reports[name]["images"][place]
            picture = _thumbnail(images[name][place : place + 1], result)
            left = SIDE + column * (CELL + GAP)
            at = left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2
            sheet.paste(picture, at)
            colour = FLAGGED if result["flagged"] else CLEAR
            draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=colour, width=3)
    return sheet


def _thumbnail(image: torch.Tensor, result: Mapping) -> Image.Image:
    shown = censor.apply(image, {"images": [result]}, "black")[0, ..., :3]
    pixels = (shown.clamp(0, 1).numpy(force=True) * 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2))
    picture.thumbnail((CELL - 8, CELL - 8), Image.Resampling.LANCZOS)
    return picture


def _fitted(draw: ImageDraw.ImageDraw, text: str, font) -> str:
    while len(text) > 1 and draw.textlength(text, font=font) > CELL:
        text = text[:-2] + "…"
    return text


def _wrapped(label: str) -> str:
    return "\n".join(label[start : start + 13] for start in range(0, min(len(label), 39), 13))
