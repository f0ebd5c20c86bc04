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
from .pictures import Unreadable, open_picture

MOST, SIDE, QUALITY = 48, 192, 80  # of a page; pixels of the longer side; of the JPEG


@dataclass(frozen=True)
class Thumbnail:
    """A picture's row, the address of its file, and itself as data, or why there is none."""

    row: Mapping[str, Any]
    link: str
    data: str = ""
    fault: str = ""


def of_file(row: Mapping[str, Any], path: Path, link: str) -> Thumbnail:
    """The thumbnail of a picture file, in the frame in which the first counted thing was."""
    number = next((found.get("frame", 0) for found in counted(row)), 0)
    try:
        opened = open_picture(path)
        frames = {} if opened is None else dict(opened[1])
    except Unreadable as error:
        return Thumbnail(row, link, fault=str(error))
    if not frames:
        return Thumbnail(row, link, fault="it is no picture any more")
    return Thumbnail(row, link, of_pixels(row, frames.get(number, next(iter(frames.values())))))


def of_pixels(row: Mapping[str, Any], pixels: np.ndarray) -> str:
    """A picture, uint8 (H, W, 3 or 4), as a small JPEG; what is counted is blurred."""
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    picture.thumbnail((SIDE, SIDE))
    small = {**row, "detections": [_scaled(found, picture, pixels) for found in row["detections"]]}
    values = torch.from_numpy(np.divide(np.asarray(picture), 255, dtype=np.float32))[None]
    hidden = censor.apply(values, {"images": [small]}, "blur")[0]
    file = io.BytesIO()
    Image.fromarray((hidden.numpy() * 255).round().astype(np.uint8)).save(
        file, "JPEG", quality=QUALITY
    )
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _scaled(found: Mapping[str, Any], small: Image.Image, pixels: np.ndarray) -> dict[str, Any]:
    """A detection with its box in the pixels of the small picture, none of it left out."""
    across, down = small.width / pixels.shape[1], small.height / pixels.shape[0]
    x, y, w, h = found["box"]
    left, top = math.floor(x * across), math.floor(y * down)
    right, bottom = math.ceil((x + w) * across), math.ceil((y + h) * down)
    return {**found, "box": [left, top, right - left, bottom - top]}
