"""What to do with counted detections: mark them, blur them, blacken them.

Pictures without any stay as they are.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .detectors.interface import to_uint8
from .report import counted

MARGIN = 0.05  # of the box's longer side: NudeNet cuts its boxes to whole pixels
CELLS = 6  # a blurred box keeps at most this many cells a side
RED = (220, 30, 30)


def regions(result: dict, height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each counted box, grown by a margin, inside the picture, never empty."""
    found = []
    for x, y, w, h in (detection["box"] for detection in counted(result)):
        grow = 2 + int(MARGIN * max(w, h))
        left, top = min(max(x - grow, 0), width - 1), min(max(y - grow, 0), height - 1)
        found.append(
            (slice(top, max(y + h + grow, top + 1)), slice(left, max(x + w + grow, left + 1)))
        )
    return found


def flagged_mask(images: torch.Tensor, report: dict) -> torch.Tensor:
    """1.0 where a counted detection lies, for images (B, H, W, C): a mask (B, H, W)."""
    # numpy's zeros take no time until they are touched
    mask = torch.from_numpy(np.zeros(images.shape[:3], np.float32))
    for picture, result in zip(mask, report["images"], strict=True):
        for region in regions(result, *picture.shape):
            picture[region] = 1.0
    return mask


def apply(images: torch.Tensor, report: dict, action: str) -> torch.Tensor:
    """Images (B, H, W, C) with an action on every counted detection.

    It is `annotate`, `blur` or `black`; `none` changes nothing.
    """
    if action not in _ACTIONS or not any(result["flagged"] for result in report["images"]):
        return images
    out = images.clone()
    for picture, result in zip(out, report["images"], strict=True):
        if result["flagged"]:
            _ACTIONS[action](picture, result)
    return out


def _black(picture: torch.Tensor, result: dict) -> None:
    for region in regions(result, *picture.shape[:2]):
        picture[region][..., :3] = 0.0


def _blur(picture: torch.Tensor, result: dict) -> None:
    for region in regions(result, *picture.shape[:2]):
        patch = picture[region][..., :3].movedim(-1, 0)[None]  # HWC -> 1CHW
        cells = [max(1, min(CELLS, side // 8)) for side in patch.shape[2:]]
        coarse = adaptive_avg_pool2d(patch, cells)
        smooth = interpolate(coarse, size=patch.shape[2:], mode="bilinear", align_corners=False)
        picture[region][..., :3] = smooth[0].movedim(0, -1)


def _annotate(picture: torch.Tensor, result: dict) -> None:
    colours = picture[..., :3].expand(*picture.shape[:2], 3)
    drawn = Image.fromarray(to_uint8(colours.numpy(force=True)))
    draw = ImageDraw.Draw(drawn)
    line = max(1, round(min(drawn.size) / 200))
    font = ImageFont.load_default(size=max(10, min(drawn.size) // 32))
    for detection in counted(result):
        x, y, w, h = detection["box"]
        draw.rectangle((x, y, x + w, y + h), outline=RED, width=line)
        label = f"{detection['class']} {detection['score']:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        at = (max(0, min(x, drawn.width - right)), y - bottom - 4 if y > bottom + 4 else y + line)
        draw.rectangle(
            (at[0] + left - 2, at[1] + top - 2, at[0] + right + 2, at[1] + bottom + 2), fill=RED
        )
        draw.text(at, label, fill="white", font=font)
    picture[..., :3] = (torch.from_numpy(np.array(drawn)) / 255.0)[..., : picture.shape[2]]


_ACTIONS: dict[str, Callable[[torch.Tensor, dict], None]] = {
    "annotate": _annotate,
    "blur": _blur,
    "black": _black,
}
