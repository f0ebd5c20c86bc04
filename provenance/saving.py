"""A picture as a file's bytes, with ComfyUI's texts where ComfyUI's own nodes write them."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..options.table import check, option
from .certificates import SigningError

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}  # by what a file's name ends with
MODEL, MAKE = 0x0110, 0x010F  # EXIF: the prompt, and from there down what else there is
LONGEST = 65_000  # bytes of EXIF that a JPEG holds


@dataclass(frozen=True)
class Saving:
    """How pictures are saved."""

    format: str = option("png", "The kind of file.", choices=FORMATS)
    quality: int = option(
        95, "Of jpeg and webp. At 100 webp loses nothing.", low=1, high=100, step=1
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def kind(self) -> str:
        """Pillow's name of the format."""
        return FORMATS[self.format]


def encoded(pixels: np.ndarray, how: Saving, texts: Mapping[str, str]) -> bytes:
    """Pixels, uint8 (H, W, 3 or 4), as a file. Raises SigningError for what the format can't hold.

    `texts` are what ComfyUI writes, `prompt` first.
    """
    if how.kind == "JPEG" and pixels.shape[2] == 4:
        raise SigningError("JPEG has no transparency, and this picture has; choose png or webp.")
    written = BytesIO()
    Image.fromarray(pixels).save(written, how.kind, **_options(how, texts))
    return written.getvalue()


def _options(how: Saving, texts: Mapping[str, str]) -> dict[str, Any]:
    if how.kind == "PNG":
        chunks = PngInfo()
        for name, text in texts.items():
            chunks.add_text(name, text)
        return {"pnginfo": chunks, "compress_level": 4}
    exif = Image.Exif()
    others = (name for name in texts if name != "prompt")
    places = {MAKE - down: name for down, name in enumerate(others)}
    if "prompt" in texts:
        places[MODEL] = "prompt"
    for place, name in places.items():
        exif[place] = f"{name}:{texts[name]}"
    if how.kind == "JPEG" and len(exif.tobytes()) > LONGEST:
        raise SigningError(
            "The workflow is too long for a JPEG's metadata (64 KB); choose png or webp."
        )
    lossless = how.kind == "WEBP" and how.quality == 100
    more = {"lossless": True, "exact": True} if lossless else {"quality": how.quality}
    return {"exif": exif, **more}
