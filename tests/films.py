"""Small films for tests, of pictures that each show for some time."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage import data

CODECS = {
    ".mp4": "libx264",
    ".mov": "mpeg4",
    ".webm": "libvpx-vp9",
    ".mkv": "libx264",
    ".avi": "mpeg4",
}
FACE, CUP = (
    np.ascontiguousarray(Image.fromarray(each).resize((192, 192)))
    for each in (data.astronaut()[:350, 60:410], data.coffee())
)


def film(
    path: Path,
    picture: Callable[[float], np.ndarray],
    seconds: float = 6.0,
    rate: int = 10,
    *,
    sound: bool = False,
) -> Path:
    """A film of `seconds`, with the picture of each frame's time, and silence if asked."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream(CODECS[path.suffix], rate=rate)
        stream.height, stream.width = picture(0.0).shape[:2]
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 2_000_000, rate
        quiet = made.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number in range(round(seconds * rate)):
            pixels = np.ascontiguousarray(picture(number / rate))
            made.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        made.mux(stream.encode())
        if quiet:
            for start in range(0, round(seconds * 8000), 1000):
                wave = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
                wave.sample_rate, wave.pts = 8000, start
                made.mux(quiet.encode(wave))
            made.mux(quiet.encode())
    return path


def turn(path: Path, height: int) -> None:
    """Let an MP4 whose pictures are so tall be shown turned by 90 degrees."""
    turned = bytearray(path.read_bytes())
    at = turned.index(b"tkhd") + 4 + 40  # the matrix
    turned[at : at + 36] = b"".join(
        each.to_bytes(4, "big", signed=True)
        for each in (0, 65536, 0, -65536, 0, 0, height << 16, 0, 1 << 30)
    )
    path.write_bytes(turned)


def faces(path: Path, *when: tuple[float, float], **told) -> Path:
    """A film of a cup, with a face from when to when."""

    def picture(time: float) -> np.ndarray:
        return FACE if any(first <= time < last for first, last in when) else CUP

    return film(path, picture, **told)
