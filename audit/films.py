"""Videos, a frame at a time, as a viewer shows them; read with PyAV, which ComfyUI requires.

Nothing is taken for whole that is not: what a decoder reports, a film that ends before its time, a
second without frames, and a stream without any are all Unreadable.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from .film_reader import Look, Reader, clock, pixels_of
from .pictures import MEGAPIXELS, Unreadable, is_empty, reason

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"})
EVERY = 1.0  # seconds between two looks
# the containers that are read, by the first name that FFmpeg has for them: no playlist, which could
# name other files or addresses
FORMATS = {"mov": "MP4", "matroska": "MATROSKA", "avi": "AVI"}
_BY_SUFFIX = {".webm": "MATROSKA", ".mkv": "MATROSKA", ".avi": "AVI"}  # the others are MP4
_OPTIONS = {"format_whitelist": "mov,matroska,webm,avi", "protocol_whitelist": "file"}
_STILL = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")


@dataclass(frozen=True)
class Film:
    """What a video is; `looks` reads it. `seconds` is what it says, or 0 where it says nothing."""

    source: Path | IO[bytes]
    format: str
    width: int
    height: int
    mode: str
    seconds: float
    mislabelled: bool

    def told(self) -> dict[str, Any]:
        """What a row says of the file; `frames` are counted as they are read."""
        row = {key: value for key, value in vars(self).items() if key != "source"}
        return {**row, "seconds": round(self.seconds, 3), "frames": 0}

    def looks(
        self,
        every: float = EVERY,
        megapixels: float = MEGAPIXELS,
        window: tuple[float, float] = (0.0, math.inf),
        *,
        threads: int = 0,
        chosen: Callable[[int], bool] = lambda number: True,
    ) -> Iterator[Look]:
        """The first frame of each video stream, the last, and one each `every` seconds between.

        All frames where `every` is 0, or those whose numbers are `chosen`. `window` leaves out what
        lies before and after. No more than a few frames are held. Raises Unreadable, after what
        could be read.
        """
        with opened(self.source) as container:
            reader = Reader(container, every, megapixels, window, chosen=chosen)
            for stream in container.streams.video:
                stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
                stream.codec_context.options = {"err_detect": "explode"}
            try:
                for packet in container.demux():
                    yield from reader.read(packet)
                yield from reader.rest()
            except Unreadable:
                raise
            except Exception as error:  # FFmpeg has some hundred
                raise Unreadable(reason(error)) from error
            reader.check_end()


def open_film(path: Path) -> Film | None:
    """What a file is; None for one that is no video.

    Raises Unreadable for one that claims to be a video, or begins as one, and can't be read.
    """
    claims = path.suffix.lower() in SUFFIXES
    if is_empty(path, claims) or not (claims or _begins_as_one(path)):
        return None
    return described(path, claims=claims)


def described(source: Path | IO[bytes], *, claims: bool = True) -> Film | None:
    """A film of a file or a stream; None for sound alone that claims nothing else."""
    try:
        with opened(source) as container:
            if not container.streams.video:
                if claims:
                    raise Unreadable("it has no pictures")
                return None
            stream = container.streams.video[0]
            kind = FORMATS.get(container.format.name.split(",")[0], container.format.name)
            suffix = source.suffix.lower() if isinstance(source, Path) else ""
            named = _BY_SUFFIX.get(suffix, "MP4") if suffix in SUFFIXES else ""
            seconds = container.duration / 1e6 if container.duration else 0.0
            size = stream.width, stream.height
            mode = stream.pix_fmt or "?"
            return Film(source, kind, *size, mode, seconds, bool(suffix) and named != kind)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(reason(error)) from error


def frame_at(film: Film, time: float) -> np.ndarray:
    """The frame that is shown at a time, uint8 (H, W, 3 or 4). Raises Unreadable."""
    try:
        with opened(film.source) as container:
            container.seek(max(0, int(time * 1e6) - 1))
            for frame in container.decode(video=0):
                if (frame.time or 0.0) >= time - 1e-3:
                    return pixels_of(frame)
    except Exception as error:
        raise Unreadable(reason(error)) from error
    raise Unreadable(f"it has no frame at {clock(time)} any more")


@contextlib.contextmanager
def opened(source: Path | IO[bytes]) -> Iterator[Any]:
    """A container that is open for reading, from its beginning."""
    import av

    if isinstance(source, Path):
        with av.open(str(source), options=_OPTIONS) as container:
            yield container
    else:
        source.seek(0)
        with av.open(source, options=_OPTIONS) as container:
            yield container


def _begins_as_one(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    boxes = head[4:8] == b"ftyp" and head[8:12] not in _STILL
    return boxes or head[:4] == b"\x1aE\xdf\xa3" or (head[:4], head[8:]) == (b"RIFF", b"AVI ")
