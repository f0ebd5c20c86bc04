"""The embeddings of pictures and prompts: made, or kept from an earlier measure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...audit.pictures import Unreadable, open_picture
from ...options.language import phrase
from ...storage.faults import told
from .cache import Cache, is_kept
from .change import pixel_distance
from .embeddings import QualityError, is_whole
from .sources import Picture, Source, reasons

if TYPE_CHECKING:  # pages and grids are made without ComfyUI
    from .encoders import Encoders

NO_NUMBER, NO_PICTURE = phrase("its embedding is not a number"), phrase("it is no picture")
NO_TEXT = phrase("the embedding of its prompt is not a number")
PIXELS = "pixels"
Digested = tuple[Picture, str]  # a picture, and the digest of its file


@dataclass(frozen=True)
class Seen:
    """The pictures of a source that could be looked at, their embeddings (n, d) and digests.

    `left_out` has the names of all others, by reason.
    """

    source: Source
    pictures: Sequence[Picture]
    vectors: np.ndarray
    digests: Sequence[str]
    left_out: Mapping[str, list[str]]


def look(source: Source, encoders: Encoders, cache: Cache, on_picture: Callable[[], None]) -> Seen:
    """Every picture of a source. Raises QualityError where none can be looked at."""
    pictures, vectors, digests = [], [], []
    left_out = {why: list(names) for why, names in source.left_out.items()}
    for picture in source.pictures:
        on_picture()
        try:
            digest = hashlib.sha256(picture.file.read_bytes()).hexdigest()
            vector = cache.get(encoders.of_pictures, digest)
            if vector is None or not is_kept(vector, encoders.width):
                vector = encoders.picture(pixels_of(picture))
                if not is_whole(vector):
                    raise Unreadable(NO_NUMBER)
                cache.put(encoders.of_pictures, digest, vector)
        except (OSError, Unreadable) as error:
            left_out.setdefault(told(error), []).append(picture.name)
            continue
        pictures.append(picture)
        vectors.append(vector)
        digests.append(digest)
    if not pictures:
        raise QualityError(
            f"{source.folder}: none of its pictures can be measured"
            f" ({'; '.join(reasons(left_out))})."
        )
    return Seen(source, pictures, np.stack(vectors), digests, left_out)


def look_at_texts(
    prompts: Iterable[str], encoders: Encoders, cache: Cache, on_text: Callable[[], None]
) -> dict[str, np.ndarray]:
    """The embedding of every prompt that has one."""
    found = {}
    for prompt in dict.fromkeys(prompts):
        on_text()
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
        vector = cache.get(encoders.of_texts, digest)
        if vector is None or not is_kept(vector, encoders.width):
            vector = encoders.text(prompt)
            if is_whole(vector):
                cache.put(encoders.of_texts, digest, vector)
        if is_whole(vector):
            found[prompt] = vector
    return found


def pixels_apart(one: Digested, other: Digested, cache: Cache) -> float | None:
    """The pixel distance of two pictures; None of two sizes."""
    content = f"{one[1]} {other[1]}"
    kept = cache.get(PIXELS, content)
    if kept is None or len(kept) != 1:
        apart = pixel_distance(pixels_of(one[0]), pixels_of(other[0]))
        kept = np.array([math.nan if apart is None else apart], np.float32)
        cache.put(PIXELS, content, kept)
    return None if math.isnan(kept[0]) else float(kept[0])


def pixels_of(picture: Picture) -> np.ndarray:
    """The first frame of a picture file, uint8 (H, W, 3). Raises Unreadable."""
    opened = open_picture(picture.file)
    if opened is None:
        raise Unreadable(NO_PICTURE)
    found = opened[1]
    try:
        return next(found)[1]
    finally:
        found.close()
