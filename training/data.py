"""A folder of captioned pictures as cached latents and text conditions, in buckets of one size each."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
STEP = 64  # pixels: sides of a bucket are multiples of it
WIDEST = 2.0  # the largest aspect ratio of a bucket


class DataError(ValueError):
    """Training data that can't be used; the message names the folder or file, the count and the first example."""


@dataclass(frozen=True)
class Captioned:
    """One picture file and its caption."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Dataset:
    """Everything a run reads of its data: latents (1, C, h, w) and a caption for each picture, and the buckets."""

    latents: Sequence[torch.Tensor]
    captions: Sequence[str]
    buckets: Sequence[Sequence[int]]
    sha256: str


def find_pictures(folder: Path) -> list[Captioned]:
    """The pictures of a folder with their captions: from `metadata.jsonl` if there is one, or a .txt beside each.

    Raises DataError for an empty folder and for pictures without a caption.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder.")
    listed = folder / "metadata.jsonl"
    found = _from_metadata(listed) if listed.is_file() else _from_texts(folder)
    if not found:
        raise DataError(f"{folder}: no pictures in it ({', '.join(PICTURES)}).")
    return found


def load(
    pictures: Sequence[Captioned],
    encode: Callable[[torch.Tensor], torch.Tensor],
    resolution: int = 512,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Read, fit and encode every picture once. `encode` takes (1, H, W, 3) floats of 0..1 and gives latents.

    Raises DataError, naming every broken file's count and the first, before anything is encoded.
    """
    sizes, broken, digest = [], [], hashlib.sha256()
    for each in pictures:
        try:
            with Image.open(each.path) as picture:
                sizes.append(bucket_size(*ImageOps.exif_transpose(picture).size, resolution))
        except (UnidentifiedImageError, OSError) as error:
            broken.append((each.path, error))
        digest.update(f"{each.path.name}\0{each.caption}\0".encode() + each.path.read_bytes())
    if broken:
        path, error = broken[0]
        raise DataError(
            f"{len(broken)} of {len(pictures)} pictures can't be read (first: {path.name}: {error}). Remove them."
        )
    latents = []
    for each, size in zip(pictures, sizes, strict=True):
        latents.append(encode(_fitted(each.path, size)).cpu())
        progress(len(latents), len(pictures))
    buckets = [[i for i, size in enumerate(sizes) if size == wanted] for wanted in sorted(set(sizes))]
    return Dataset(latents, [each.caption for each in pictures], buckets, digest.hexdigest())


def bucket_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """The bucket (width, height) of a picture: its aspect ratio as near as steps allow, area about resolution^2."""
    ratio = min(max(width / height, 1 / WIDEST), WIDEST)
    sides = (resolution * math.sqrt(ratio), resolution / math.sqrt(ratio))
    return tuple(max(STEP, round(side / STEP) * STEP) for side in sides)


def _fitted(path: Path, size: tuple[int, int]) -> torch.Tensor:
    """A picture scaled to cover its bucket and cut at the centre: (1, H, W, 3), float 0..1."""
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
        fitted = ImageOps.fit(upright, size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255.0)[None]


def _from_texts(folder: Path) -> list[Captioned]:
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    bare = [path.name for path in pictures if not path.with_suffix(".txt").is_file()]
    if bare:
        raise DataError(
            f"{folder}: {len(bare)} of {len(pictures)} pictures have no caption (first: {bare[0]}). "
            "Put a .txt of the same name beside each; it may be empty."
        )
    texts = {path.with_suffix("") for path in pictures}
    lonely = sorted(path.name for path in folder.glob("*.txt") if path.with_suffix("") not in texts)
    if lonely and pictures:
        raise DataError(
            f"{folder}: {len(lonely)} captions have no picture (first: {lonely[0]}). Remove them or add the pictures."
        )
    return [Captioned(path, path.with_suffix(".txt").read_text(encoding="utf-8").strip()) for path in pictures]


def _from_metadata(listed: Path) -> list[Captioned]:
    found = []
    for number, line in enumerate(listed.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            path, caption = listed.parent / entry["file_name"], entry["text"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{listed}: line {number} must be JSON with file_name and text ({error!r}).") from error
        if not path.is_file():
            raise DataError(f"{listed}: line {number} names {entry['file_name']}, which is not there.")
        found.append(Captioned(path, caption))
    return found
