"""Mark, blur or blacken counted detections; pictures without any stay as they are."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from ..drawing.notice import notice
from ..options.choices import chosen
from ..options.table import check, option
from .columns import counted

MARGIN = 0.05  # of the box's longer side: NudeNet cuts its boxes to whole pixels
CELLS = 6  # a blurred box keeps at most this many cells a side
RED = (220, 30, 30)
# Pillow's own, with FreeType or without
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


def regions(result: dict[str, Any], height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each counted box, grown by a margin, inside the picture, never empty."""
    found = []
    for x, y, w, h in (detection["box"] for detection in counted(result)):
        grow = 2 + int(MARGIN * max(w, h))
        left, top = min(max(x - grow, 0), width - 1), min(max(y - grow, 0), height - 1)
        found.append(
            (slice(top, max(y + h + grow, top + 1)), slice(left, max(x + w + grow, left + 1)))
        )
    return found


def flagged_mask(images: torch.Tensor, report: dict[str, Any]) -> torch.Tensor:
    """1.0 where a counted detection lies, for images (B, H, W, C): a mask (B, H, W)."""
    # numpy's zeros take no time until they are touched
    mask = torch.from_numpy(np.zeros(images.shape[:3], np.float32))
    for picture, result in zip(mask, report["images"], strict=True):
        for region in regions(result, *picture.shape):
            picture[region] = 1.0
    return mask


def apply(images: torch.Tensor, report: dict[str, Any], action: str) -> torch.Tensor:
    """Images (B, H, W, C) with an action of ACTIONS on every counted detection.

    `none` changes nothing. Raises ChoiceError for any other word.
    """
    chosen(action, ACTIONS, "action")
    if action == "none" or not any(result["flagged"] for result in report["images"]):
        return images
    out = images.clone()
    for picture, result in zip(out, report["images"], strict=True):
        if result["flagged"]:
            _ACTIONS[action](picture, result)
    return out


def _black(picture: torch.Tensor, result: dict[str, Any]) -> None:
    for region in regions(result, *picture.shape[:2]):
        picture[region][..., :3] = 0.0
        picture[region][..., 3:] = 1.0  # transparency may show what was found


def _blur(picture: torch.Tensor, result: dict[str, Any]) -> None:
    for region in regions(result, *picture.shape[:2]):
        patch = picture[region].movedim(-1, 0)[None]  # HWC -> 1CHW, transparency too
        high, wide = (max(1, min(CELLS, side // 8)) for side in patch.shape[2:])
        coarse = adaptive_avg_pool2d(patch, (high, wide))
        smooth = interpolate(coarse, size=patch.shape[2:], mode="bilinear", align_corners=False)
        picture[region] = smooth[0].movedim(0, -1)


def _withhold(picture: torch.Tensor, result: dict[str, Any]) -> None:
    """The notice takes the place of all of it."""
    height, width, channels = picture.shape
    drawn = torch.from_numpy(np.divide(notice(width, height), 255.0, dtype=np.float32))
    picture[..., :3] = drawn if channels > 1 else drawn.mean(dim=2, keepdim=True)
    picture[..., 3:] = 1.0


def _annotate(picture: torch.Tensor, result: dict[str, Any]) -> None:
    """Draw frames and labels. Nothing else is touched: to redraw all of it takes ten times that."""
    height, width = picture.shape[:2]
    line, font = max(1, round(min(width, height) / 200)), _font(max(10, min(width, height) // 32))
    for detection in counted(result):
        x, y, w, h = detection["box"]
        across, down = (Image.new("RGB", size, RED) for size in ((w + 1, line), (line, h + 1)))
        _paste(picture, across, (x, y))
        _paste(picture, across, (x, y + h + 1 - line))
        _paste(picture, down, (x, y))
        _paste(picture, down, (x + w + 1 - line, y))
        label = _label(f"{detection['class']} {detection['score']:.2f}", font)
        upper = y - label.height if y > label.height else y + line
        _paste(picture, label, (max(0, min(x, width - label.width)), upper))


def _label(text: str, font: Font) -> Image.Image:
    left, top, right, bottom = map(int, font.getbbox(text))  # they are whole
    drawn = Image.new("RGB", (right - left + 4, bottom - top + 4), RED)
    ImageDraw.Draw(drawn).text((2 - left, 2 - top), text, fill="white", font=font)
    return drawn


def _paste(picture: torch.Tensor, drawn: Image.Image, at: tuple[int, int]) -> None:
    """Put a drawing at x, y into a picture (H, W, C); what lies outside is cut off."""
    left, top = at
    values = torch.from_numpy(np.divide(np.asarray(drawn), 255.0, dtype=np.float32))
    values = values[max(0, -top) :, max(0, -left) :, : picture.shape[2]]
    place = picture[max(0, top) :, max(0, left) :, :3][: values.shape[0], : values.shape[1]]
    place.copy_(values[: place.shape[0], : place.shape[1]])


@functools.cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


_ACTIONS: dict[str, Callable[[torch.Tensor, dict[str, Any]], None]] = {
    "annotate": _annotate,
    "blur": _blur,
    "black": _black,
    "withhold": _withhold,
}
ACTIONS = ("none", *_ACTIONS)
STOP = "stop"  # no change of a picture: nothing goes on


@dataclass(frozen=True)
class Acting:
    """What follows for flagged pictures."""

    action: str = option(
        "none",
        "What to do with flagged pictures. none: nothing; annotate: draw boxes; blur, black: hide"
        " what is in the boxes; withhold: put a notice in the picture's place; stop: end the run,"
        " and the error says why.",
        choices=(*ACTIONS, STOP),
    )
    write_verdict: bool = option(
        False,
        "Write the verdict, the preset and the digests of model and LoRAs into the files in which"
        " other nodes save these pictures. The verb inspect reads it.",
    )

    def __post_init__(self) -> None:
        check(self)
