"""A folder of captioned pictures as cached latents and text conditions, in buckets by size."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ..audit.pictures import Unreadable, open_picture
from ..host.comfy_types import Conditioning
from ..options.words import amount
from .captions import Captioned, DataError, caption_warnings, find_pictures, without_caption
from .engine.processes import ALONE, Share

STEP = 64  # pixels: sides of a bucket are multiples of it, or of what it shares with resolution
LEAST = 8
WIDEST = 2.0  # the largest aspect ratio of a bucket
# a text that was encoded twice may differ in its last digits on a GPU
ALIKE = 1e-3
STOCK = (
    "ComfyUI's Load Image-Text reads a .txt of the same name beside each, and takes none as empty."
)
MEGAPIXELS = 89.0  # above, Pillow warns of a decompression bomb


@dataclass(frozen=True)
class Dataset:
    """What a run reads: latents (1, C, h, w) and a CONDITIONING per picture, and sizes.

    Latents are on the CPU; `buckets` has the numbers of the pictures of each size, `warnings` what
    to say of those without a caption.
    """

    latents: Sequence[torch.Tensor]
    conditions: Sequence[Conditioning]
    buckets: Sequence[Sequence[int]]
    sha256: str
    warnings: Sequence[str] = ()

    def bucket_of(self, picture: int) -> Sequence[int]:
        return next(bucket for bucket in self.buckets if picture in bucket)


def of_sockets(latents: Sequence[dict[str, Any]], positive: Sequence[Conditioning]) -> Dataset:
    """A dataset from lists of LATENT and CONDITIONING, as ComfyUI's dataset nodes give them.

    A LATENT may hold several pictures of one size; one conditioning for each picture, or one for
    all.
    """
    pictures = [picture[None].detach().cpu() for each in latents for picture in each["samples"]]
    entries = [[entry] for conditioning in positive for entry in conditioning]
    if not pictures:
        raise DataError("latents: there are no pictures to train on.")
    if len(entries) == 1:
        entries *= len(pictures)
    if len(entries) != len(pictures):
        raise DataError(
            f"latents has {amount(len(pictures), 'picture')}, positive has"
            f" {amount(len(entries), 'text')}. Give one text for each picture, as Make Training"
            " Dataset does, or one for all."
        )
    digest = hashlib.sha256()
    for picture, ((text, extra),) in zip(pictures, entries, strict=True):
        for tensor in (
            picture,
            text,
            *(value for _, value in sorted(extra.items()) if isinstance(value, torch.Tensor)),
        ):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
    return Dataset(
        pictures, entries, _buckets([tuple(each.shape) for each in pictures]), digest.hexdigest()
    )


def warned(
    dataset: Dataset, empty: Conditioning, socket: str, files: Sequence[str] = ()
) -> Dataset:
    """A dataset of sockets that warns of its pictures without a caption.

    ComfyUI's dataset nodes give them what `empty` is, the empty prompt's. `files` are how they are
    called, where that is known; pictures are counted from 1.
    """
    nothing = empty[0][0].cpu()
    bare = [
        f"number {number}"
        for number, ((text, _),) in enumerate(dataset.conditions, 1)
        if text.shape == nothing.shape
        and torch.allclose(text.cpu(), nothing, rtol=ALIKE, atol=ALIKE)
    ]
    names = files if len(files) == len(bare) else bare
    told = without_caption(socket, names, len(dataset.latents), STOCK)
    return replace(dataset, warnings=told)


@dataclass(frozen=True)
class Sized:
    """Captioned pictures that were read once, the bucket of each, and a digest of all this.

    `warnings` are what to say of those without a caption.
    """

    pictures: Sequence[Captioned]
    sizes: Sequence[tuple[int, int]]
    sha256: str
    warnings: Sequence[str] = ()


def of_folder(folder: Path, resolution: int = 512) -> Sized:
    """The captioned pictures of a folder. Raises DataError with the count and the first."""
    found = find_pictures(folder)
    return replace(sized(found, resolution), warnings=caption_warnings(folder, found))


def sized(pictures: Sequence[Captioned], resolution: int = 512) -> Sized:
    """Read all of every picture. Raises DataError with the count of broken ones and the first."""
    sizes: list[tuple[int, int]] = []
    broken: list[tuple[Path, Unreadable]] = []
    digest = hashlib.sha256()
    for each in pictures:
        try:
            # reads all of it, so that a cut file is found here
            height, width, _ = _pixels(each.path).shape
        except Unreadable as error:
            broken.append((each.path, error))
            continue
        sizes.append(bucket_size(width, height, resolution))
        digest.update(os.fsencode(each.path.name) + f"\0{each.caption}\0{sizes[-1]}\0".encode())
        digest.update(each.path.read_bytes())
    if broken:
        path, fault = broken[0]
        raise DataError(
            f"{len(broken)} of {amount(len(pictures), 'picture')} can't be read (first:"
            f" {path.name}: {fault}). Remove them."
        )
    return Sized(pictures, sizes, digest.hexdigest())


def load(
    found: Sized,
    encode: Callable[[torch.Tensor], torch.Tensor],
    encode_texts: Callable[[Sequence[str]], Mapping[str, Conditioning]],
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    share: Share = ALONE,
) -> Dataset:
    """Fit and encode every picture and caption once; several processes share the pictures.

    `encode` takes (1, H, W, 3) floats of 0..1 and gives latents; `encode_texts` gives the
    CONDITIONING of each caption.
    """
    pictures = found.pictures
    mine = range(share.rank, len(pictures), share.count)
    encoded = {}
    for number in mine:
        encoded[number] = encode(_fitted(pictures[number].path, found.sizes[number])).cpu()
        progress(len(encoded), len(mine))
    latents = {number: latent for part in share.gather(encoded) for number, latent in part.items()}
    texts = encode_texts([each.caption for each in pictures])
    conditions = [texts[each.caption] for each in pictures]
    return Dataset(
        [latents[number] for number in sorted(latents)],
        conditions,
        _buckets(found.sizes),
        found.sha256,
        found.warnings,
    )


def _buckets(sizes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """The numbers of the pictures of each size."""
    return [
        [number for number, size in enumerate(sizes) if size == wanted]
        for wanted in sorted(set(sizes))
    ]


def bucket_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """The bucket (width, height) nearest to a picture's aspect ratio, of about resolution^2."""
    ratio = min(max(width / height, 1 / WIDEST), WIDEST)
    step = max(LEAST, math.gcd(resolution, STEP))  # a square picture's bucket is the resolution

    def stepped(side: float) -> int:
        return max(step, round(side / step) * step)

    return stepped(resolution * math.sqrt(ratio)), stepped(resolution / math.sqrt(ratio))


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
        raise Unreadable("not a picture format that can be read here")
    with closing(opened[1]) as frames:
        return next(frames)[1]
