"""A folder of captioned pictures as cached latents and text conditions, in buckets by size."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ..audit.pictures import Unreadable, open_picture
from .engine.processes import ALONE, Share

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
STEP = 64  # pixels: sides of a bucket are multiples of it, or of what it shares with resolution
LEAST = 8
WIDEST = 2.0  # the largest aspect ratio of a bucket
MEGAPIXELS = 89.0  # above, Pillow warns of a decompression bomb


class DataError(ValueError):
    """Training data that can't be used.

    The message names the folder or file, the count and the first example.
    """


@dataclass(frozen=True)
class Captioned:
    """One picture file and its caption."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Dataset:
    """Everything a run reads of its data.

    That is latents (1, C, h, w) on the CPU and a CONDITIONING for each picture, and the numbers of
    the pictures of each size.
    """

    latents: Sequence[torch.Tensor]
    conditions: Sequence[list]
    buckets: Sequence[Sequence[int]]
    sha256: str

    def bucket_of(self, picture: int) -> Sequence[int]:
        return next(bucket for bucket in self.buckets if picture in bucket)


def of_sockets(latents: Sequence[dict], positive: Sequence[list]) -> Dataset:
    """A dataset from lists of LATENT and CONDITIONING, as ComfyUI's nodes give them.

    Those are the nodes for datasets and buckets. Every LATENT may hold several pictures of one
    size. There is one conditioning for each picture, or one for all.
    """
    pictures = [picture[None].detach().cpu() for each in latents for picture in each["samples"]]
    entries = [[entry] for conditioning in positive for entry in conditioning]
    if not pictures:
        raise DataError("latents: there are no pictures to train on.")
    if len(entries) == 1:
        entries *= len(pictures)
    if len(entries) != len(pictures):
        raise DataError(
            f"There are {len(pictures)} pictures in latents and {len(entries)} texts in positive."
            " Give one text for each picture, as Make Training Dataset does, or one for all."
        )
    digest = hashlib.sha256()
    for picture, ((text, extra),) in zip(pictures, entries, strict=True):
        for tensor in (
            picture,
            text,
            *(value for _, value in sorted(extra.items()) if isinstance(value, torch.Tensor)),
        ):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return Dataset(
        pictures, entries, _buckets([tuple(each.shape) for each in pictures]), digest.hexdigest()
    )


def find_pictures(folder: Path) -> list[Captioned]:
    """The pictures of a folder with their captions.

    Captions come from `metadata.jsonl` if there is one, or else from a .txt beside each picture.
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
    encode_texts: Callable[[Sequence[str]], Mapping[str, list]],
    resolution: int = 512,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    share: Share = ALONE,
) -> Dataset:
    """Read, fit and encode every picture and caption once; several processes share the pictures.

    `encode` takes (1, H, W, 3) floats of 0..1 and gives latents; `encode_texts` gives the
    CONDITIONING of each caption. Raises DataError with the count of broken files and the first of
    them, before anything is encoded.
    """
    sizes, broken, digest = [], [], hashlib.sha256()
    for each in pictures:
        try:
            # reads all of it, so that a cut file is found here
            height, width, _ = _pixels(each.path).shape
        except Unreadable as error:
            broken.append((each.path, error))
            continue
        sizes.append(bucket_size(width, height, resolution))
        digest.update(f"{each.path.name}\0{each.caption}\0".encode() + each.path.read_bytes())
    if broken:
        path, error = broken[0]
        raise DataError(
            f"{len(broken)} of {len(pictures)} pictures can't be read"
            f" (first: {path.name}: {error}). Remove them."
        )
    mine = range(share.rank, len(pictures), share.count)
    encoded = {}
    for number in mine:
        encoded[number] = encode(_fitted(pictures[number].path, sizes[number])).cpu()
        progress(len(encoded), len(mine))
    latents = {number: latent for part in share.gather(encoded) for number, latent in part.items()}
    texts = encode_texts([each.caption for each in pictures])
    conditions = [texts[each.caption] for each in pictures]
    return Dataset(
        [latents[number] for number in sorted(latents)],
        conditions,
        _buckets(sizes),
        digest.hexdigest(),
    )


def _buckets(sizes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """The numbers of the pictures of each size."""
    return [
        [number for number, size in enumerate(sizes) if size == wanted]
        for wanted in sorted(set(sizes))
    ]


def bucket_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """The bucket (width, height) of a picture.

    Its aspect ratio is as near as steps allow, its area about resolution^2.
    """
    ratio = min(max(width / height, 1 / WIDEST), WIDEST)
    sides = (resolution * math.sqrt(ratio), resolution / math.sqrt(ratio))
    step = max(LEAST, math.gcd(resolution, STEP))  # a square picture's bucket is the resolution
    return tuple(max(step, round(side / step) * step) for side in sides)


def _fitted(path: Path, size: tuple[int, int]) -> torch.Tensor:
    """A picture scaled to cover its bucket and cut at the centre: (1, H, W, 3), float 0..1."""
    fitted = ImageOps.fit(Image.fromarray(_pixels(path)), size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255.0)[None]


def _pixels(path: Path) -> np.ndarray:
    """A picture as the audit sees it, uint8 (H, W, 3); the first frame of several.

    Upright, without its transparency, as ComfyUI's LoadImage shows it; floats too, which that shows
    black. Raises Unreadable.
    """
    opened = open_picture(path, MEGAPIXELS, frames=1)
    if opened is None:
        raise Unreadable("no picture format that can be read here")
    with closing(opened[1]) as frames:
        return next(frames)[1]


def _from_texts(folder: Path) -> list[Captioned]:
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    bare = [path.name for path in pictures if not path.with_suffix(".txt").is_file()]
    if bare:
        raise DataError(
            f"{folder}: {len(bare)} of {len(pictures)} pictures have no caption (first: {bare[0]})."
            " Put a .txt of the same name beside each; it may be empty."
        )
    texts = {path.with_suffix("") for path in pictures}
    lonely = sorted(path.name for path in folder.glob("*.txt") if path.with_suffix("") not in texts)
    if lonely and pictures:
        raise DataError(
            f"{folder}: {len(lonely)} captions have no picture (first: {lonely[0]})."
            " Remove them or add the pictures."
        )
    return [
        Captioned(path, path.with_suffix(".txt").read_text(encoding="utf-8").strip())
        for path in pictures
    ]


def _from_metadata(listed: Path) -> list[Captioned]:
    found = []
    for number, line in enumerate(listed.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            path, caption = listed.parent / entry["file_name"], entry["text"]
        except (json.JSONDecodeError, RecursionError, KeyError, TypeError) as error:
            raise DataError(
                f"{listed}: line {number} must be JSON with file_name and text ({error!r})."
            ) from error
        if not path.is_file():
            raise DataError(
                f"{listed}: line {number} names {entry['file_name']}, which is not there."
            )
        found.append(Captioned(path, caption))
    return found
