"""Contact sheets: the pictures of one audit, and those whose verdict differs between audits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..drawing.figures import INK
from . import censor
from .compare import differing
from .detectors.interface import to_uint8
from .detectors.runtime import opencv

CELL, GAP, HEAD, SIDE, FRAME = 192, 8, 34, 92, 6
MOST_ROWS = 24
MOST_CELLS, WIDEST = 12, 768  # of an audit sheet: pictures, and pixels of all in a row
FLAGGED, CLEAR = "#c2410c", "#0d9488"


def audit_sheet(
    images: Sequence[torch.Tensor] | torch.Tensor,
    report: Mapping[str, Any],
    labels: Sequence[str] = (),
) -> Image.Image:
    """The pictures of one audit, (B, H, W, C), flagged ones first, at most 12.

    Each is shown with its place, or its label, and what counted. A single picture gets up to 768
    pixels, the four of a row share them. A frame tells flagged from not flagged.
    """
    results, summary = report["images"], report["summary"]
    order = sorted(
        range(len(results)),
        key=lambda place: not results[place]["flagged"],
    )[:MOST_CELLS]
    columns = max(1, math.ceil(len(order) ** 0.5))
    rows, room = math.ceil(len(order) / columns), WIDEST // columns - 2 * FRAME
    first = images[0].shape[:2] if len(images) else (room, room)
    wide, high = (size + 2 * FRAME for size in _size(first, room))
    grid = columns * (wide + GAP) + GAP
    # of letters, pixels: a node shows a wide sheet as wide as a narrow one
    unit = min(max(grid // 34, 17), 23)
    large, small = ImageFont.load_default(size=1.6 * unit), ImageFont.load_default(size=unit)
    top, line = 4 * unit + GAP, unit + 2 * GAP
    width = max(grid, math.ceil(large.getlength(summary["verdict"])) + 2 * GAP)
    sheet = Image.new("RGB", (width, top + rows * (high + line)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text(
        (GAP, GAP), summary["verdict"], fill=FLAGGED if summary["flagged"] else CLEAR, font=large
    )
    note = (
        f"{len(order)} of {len(results)} shown, flagged ones first; "
        if len(order) < len(results)
        else ""
    )
    note = _fitted(small, f"{note}preset {summary['preset']}", width - 2 * GAP)
    draw.text((GAP, top - GAP), note, fill=INK, font=small, anchor="ld")
    for number, place in enumerate(order):
        left, upper = GAP + number % columns * (wide + GAP), top + number // columns * (high + line)
        result = results[place]
        _cell(
            sheet,
            (left, upper, left + wide, upper + high),
            _reduced(images[place], room),
            result["flagged"],
        )
        name = labels[place] if labels else str(place + 1)
        label = f"{name}: {', '.join(result['reasons'])}" if result["flagged"] else name
        draw.text((left, upper + high + 2), _fitted(small, label, wide), fill=INK, font=small)
    return sheet


def contact_sheet(
    changed: Sequence[int],
    reports: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, torch.Tensor],
    labels: Sequence[str] = (),
) -> Image.Image:
    """The changed pictures, a row each, at most 24, a column an audit.

    What was counted is blackened. `images` are (B, H, W, C) by audit; `labels` name the pictures,
    their places otherwise. Frames as in `audit_sheet`.
    """
    names, rows = list(images), list(changed[:MOST_ROWS])
    width = SIDE + len(names) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, 2 * HEAD + max(1, len(rows)) * (CELL + GAP) + GAP), "white")
    draw, font, small = (
        ImageDraw.Draw(sheet),
        ImageFont.load_default(size=15),
        ImageFont.load_default(size=12),
    )
    title = differing(len(changed)).capitalize()
    if len(changed) > len(rows):
        title += f"; the first {len(rows)} are shown"
    draw.text((GAP, GAP), title, fill=INK, font=font)
    for column, name in enumerate(names):
        draw.text(
            (SIDE + column * (CELL + GAP), HEAD + GAP),
            _fitted(small, name, CELL),
            fill=INK,
            font=small,
        )
    for row, place in enumerate(rows):
        top = 2 * HEAD + row * (CELL + GAP)
        label = str(labels[place]) if labels else f"picture {place + 1}"
        draw.multiline_text((GAP, top + CELL // 2 - 8), _wrapped(label), fill=INK, font=small)
        for column, name in enumerate(names):
            result = reports[name]["images"][place]
            hidden = censor.apply(images[name][place : place + 1], {"images": [result]}, "black")[0]
            left = SIDE + column * (CELL + GAP)
            _cell(
                sheet,
                (left, top, left + CELL, top + CELL),
                _reduced(hidden, CELL - 2 * FRAME),
                result["flagged"],
            )
    return sheet


def _cell(
    sheet: Image.Image, box: tuple[int, int, int, int], picture: Image.Image, flagged: bool
) -> None:
    """Put a picture into the middle of a framed box (left, top, right, bottom) of the sheet."""
    left, top, right, bottom = box
    sheet.paste(
        picture, ((left + right - picture.width) // 2, (top + bottom - picture.height) // 2)
    )
    outline = FLAGGED if flagged else CLEAR
    ImageDraw.Draw(sheet).rectangle(
        (left, top, right - 1, bottom - 1), outline=outline, width=FRAME
    )


def _size(shape: Sequence[int], room: int) -> tuple[int, int]:
    """(width, height) at which a picture of (height, width) fits `room` pixels, never enlarged."""
    scale = min(1.0, room / max(shape))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _reduced(image: torch.Tensor, room: int) -> Image.Image:
    """A picture (H, W, C) that fits into `room` pixels a side."""
    longest = max(image.shape[:2])
    # of a large picture every second, third, ... pixel looks the same, and is read far sooner
    step = max(1, longest // (2 * room))
    colours = image[::step, ::step, :3].float().numpy(force=True)
    if longest > room:
        size = _size(image.shape[:2], room)
        cv2 = opencv()
        colours = cv2.resize(np.ascontiguousarray(colours), size, interpolation=cv2.INTER_LINEAR)
        colours = colours.reshape(*colours.shape[:2], -1)  # it drops a single channel
    return Image.fromarray(to_uint8(colours))


def _fitted(font: censor.Font, text: str, width: int) -> str:
    """The text, cut to so many pixels."""
    length = font.getlength(text)
    if length <= width:
        return text
    return f"{text[: max(1, int(len(text) * width / length) - 2)]}…"


def _wrapped(label: str) -> str:
    return "\n".join(label[start : start + 13] for start in range(0, min(len(label), 39), 13))
