"""Picture files as a viewer shows them: RGB, or RGBA if asked, uint8 (H, W, 3 or 4).

They may have any depth, colour space or number of frames.
"""

import stat
from collections.abc import Generator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..options.errors import PackError
from ..storage.names import valid

# What is recognised by its first bytes; a file of another kind is looked at only if its name
# claims to be a picture.
_WANTED = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "PPM",
    "ICO",
    "DDS",
    "TGA",
    "PSD",
    "QOI",
)
_NAMES = (
    "jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff avif jp2 j2k jpx ppm pgm pbm pnm ico dds"
    " tga psd qoi heic heif jxl"
)
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split(" "))
_LOOSE = {"TGA"}  # has no first bytes to know it by: believed only from the name
# suffixes that Pillow does not list
_ALSO = {"MPO": {".jpg", ".jpeg", ".jpe", ".jfif"}, "PNG": {".apng"}}
_NO_FILES = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
MEGAPIXELS = 100.0
FRAMES = 16
Frames = Generator[tuple[int, np.ndarray], None, None]  # number and picture


class Unreadable(PackError, ValueError):
    """A file that can't be looked at; the message is the reason."""


@dataclass(frozen=True)
class Opened:
    """What a file is; of its `frames` only some are looked at.

    It is `mislabelled` when its name claims another format.
    """

    format: str
    width: int
    height: int
    mode: str
    frames: int
    mislabelled: bool


def open_picture(
    path: Path, megapixels: float = MEGAPIXELS, frames: int = FRAMES, *, alpha: bool = False
) -> tuple[Opened, Frames] | None:
    """What a file is, and its frames by number; None for a file that is no picture.

    There are at most `frames` of them, evenly spread. Orientation is applied; transparency is
    dropped, as ComfyUI's LoadImage does, or with `alpha` a fourth channel where there is any.

    Raises Unreadable for what claims to be a picture and can't be read: empty, cut off, corrupt, or
    larger than `megapixels`; and for what can't be opened at all, since it may be a picture.
    """
    claims = path.suffix.lower() in SUFFIXES
    if is_empty(path, claims):
        return None
    return _opened(path, path.suffix.lower(), megapixels, frames, alpha=alpha)


def picture_in(
    content: bytes, megapixels: float = MEGAPIXELS, frames: int = FRAMES
) -> tuple[Opened, Frames] | None:
    """The same of bytes that have no name, with transparency: what no first bytes tell is none."""
    return _opened(BytesIO(content), "", megapixels, frames, alpha=True)


def _opened(
    source: Path | BytesIO, suffix: str, megapixels: float, frames: int, *, alpha: bool
) -> tuple[Opened, Frames] | None:
    claims = suffix in SUFFIXES
    try:
        image = Image.open(source, formats=_formats(claims))
    except UnidentifiedImageError as error:
        if claims:
            raise Unreadable("not a picture format that can be read here") from error
        return None
    except Image.DecompressionBombError as error:
        raise Unreadable(f"larger than the limit of {megapixels:g} megapixels") from error
    except Exception as error:  # decoders fail in ways of their own
        if claims:
            raise Unreadable(reason(error)) from error
        return None
    try:
        check_size(image.width, image.height, megapixels)
        opened = _described(image, suffix)
    except Unreadable:
        image.close()
        raise
    except Exception as error:  # a count of frames may need all of the file
        image.close()
        raise Unreadable(reason(error)) from error
    looks = _frames(image, opened, frames, megapixels)
    return opened, looks if alpha else ((number, each[..., :3]) for number, each in looks)


def is_empty(path: Path, claims: bool) -> bool:
    """Whether there is nothing in a file. Raises Unreadable for one that claims there is."""
    fault = _without_content(path)
    if fault and claims:
        raise Unreadable(fault)
    return bool(fault)


def _without_content(path: Path) -> str:
    """Why there is nothing in a file; nothing when there is. Raises Unreadable."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind in _NO_FILES:  # to open a pipe is to wait for whoever writes into it
            return f"no file, but {_NO_FILES[kind]}"
        with path.open("rb") as file:
            return "" if file.read(1) else "the file is empty"
    except OSError as error:  # no permission, a link to nothing or to itself, a folder
        raise Unreadable(reason(error)) from error


def to_pixels(image: Image.Image) -> np.ndarray:
    """A loaded picture of any mode as RGB, or RGBA if it has transparency, uint8 (H, W, 3 or 4).

    16 bits and floats are scaled, not cut off.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise Unreadable("it holds values that are not numbers")
        highest = values.max(initial=0.0)
        full = 65535.0 if image.mode != "F" or highest > 255.0 else 255.0 if highest > 1.0 else 1.0
        grey = np.clip(values / full * 255.0, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _described(image: Image.Image, suffix: str) -> Opened:
    frames = getattr(image, "n_frames", 1)
    kind = image.format or "?"
    suffixes = {
        suffix for suffix, name in Image.registered_extensions().items() if name == kind
    } | _ALSO.get(kind, set())
    return Opened(kind, image.width, image.height, image.mode, frames, suffix not in suffixes)


def _formats(claims: bool) -> list[str]:
    Image.init()
    return [name for name in _WANTED if name in Image.OPEN and (claims or name not in _LOOSE)]


def check_size(width: int, height: int, megapixels: float) -> None:
    if width * height > megapixels * 1e6:
        raise Unreadable(
            f"{width} x {height} pixels are more than the limit of {megapixels:g} megapixels"
        )


def _frames(image: Image.Image, opened: Opened, most: int, megapixels: float) -> Frames:
    with image:
        for number in sorted(
            {round(place) for place in np.linspace(0, opened.frames - 1, min(opened.frames, most))}
        ):
            try:
                if opened.frames > 1:
                    image.seek(number)
                check_size(image.width, image.height, megapixels)  # pages may differ
                yield number, to_pixels(image)
            except Unreadable:
                raise
            except Exception as error:
                raise Unreadable(reason(error)) from error


def reason(error: Exception) -> str:
    said = " ".join(str(error).split())
    return valid(f"{type(error).__name__}: {said}" if said else type(error).__name__)
