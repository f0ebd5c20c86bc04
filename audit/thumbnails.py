"""Small pictures for the pages of audits, of a bounded number: what is counted is blurred."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import censor
from .columns import counted
from .films import frame_at, open_film
from .pictures import Unreadable, open_picture

MOST, SIDE, QUALITY = 150, 192, 80  # of a page; pixels of the longer side; of the JPEG
OF_FILM = 4  # frames of a film


@dataclass(frozen=True)
class Thumbnail:
    """A picture's row, the address of its file, and itself as data, or why there is none."""

    row: Mapping[str, Any]
    link: str
    data: str = ""
    fault: str = ""


def of_file(row: Mapping[str, Any], path: Path, link: str) -> Thumbnail:
    """The thumbnail of a picture file, in the frame in which the first counted thing was."""
    if "seconds" in row:
        return _of_film(row, path, link)
    number = next((found.get("frame", 0) for found in counted(row)), 0)
    try:
        opened = open_picture(path)
        frames = {} if opened is None else dict(opened[1])
    except Unreadable as error:
        return Thumbnail(row, link, fault=str(error))
    if not frames:
        return Thumbnail(row, link, fault="it is no picture any more")
    return Thumbnail(row, link, of_pixels(row, frames.get(number, next(iter(frames.values())))))


def _of_film(row: Mapping[str, Any], path: Path, link: str) -> Thumbnail:
    """A sheet of a film: at most four frames of those in which something counts, or the first."""
    times = sorted({found["time"] for found in counted(row)}) or [0.0]
    places = sorted(
        {round(each) for each in np.linspace(0, len(times) - 1, min(len(times), OF_FILM))}
    )
    try:
        film = open_film(path)
        if film is None:
            return Thumbnail(row, link, fault="it is no video any more")
        shown = [hidden(_at(row, times[each]), frame_at(film, times[each])) for each in places]
    except Unreadable as error:
        return Thumbnail(row, link, fault=str(error))
    wide, high = max(each.width for each in shown) + 2, shown[0].height + 2
    across = min(2, len(shown))
    sheet = Image.new("RGB", (wide * across - 2, high * -(-len(shown) // across) - 2), "white")
    for place, each in enumerate(shown):
        sheet.paste(each, (place % across * wide, place // across * high))
    sheet.thumbnail((SIDE, SIDE))
    return Thumbnail(row, link, _as_data(sheet))


def _at(row: Mapping[str, Any], time: float) -> dict[str, Any]:
    return {**row, "detections": [each for each in row["detections"] if each["time"] == time]}


def of_pixels(row: Mapping[str, Any], pixels: np.ndarray) -> str:
    """A picture, uint8 (H, W, 3 or 4), as a small JPEG; what is counted is blurred."""
    return _as_data(hidden(row, pixels))


def hidden(row: Mapping[str, Any], pixels: np.ndarray) -> Image.Image:
    """A picture, small, with what is counted in it blurred."""
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    picture.thumbnail((SIDE, SIDE))
    small = {**row, "detections": [_scaled(found, picture, pixels) for found in row["detections"]]}
    values = torch.from_numpy(np.divide(np.asarray(picture), 255, dtype=np.float32))[None]
    blurred = censor.apply(values, {"images": [small]}, "blur")[0]
    return Image.fromarray((blurred.numpy() * 255).round().astype(np.uint8))


def _as_data(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _scaled(found: Mapping[str, Any], small: Image.Image, pixels: np.ndarray) -> dict[str, Any]:
    """A detection with its box in the pixels of the small picture, none of it left out."""
    across, down = small.width / pixels.shape[1], small.height / pixels.shape[0]
    x, y, w, h = found["box"]
    left, top = math.floor(x * across), math.floor(y * down)
    right, bottom = math.ceil((x + w) * across), math.ceil((y + h) * down)
    return {**found, "box": [left, top, right - left, bottom - top]}
