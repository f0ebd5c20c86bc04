"""A video written again with some frames hidden whole; its sound is copied."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..options.choices import chosen
from .censor import CELLS
from .film_audit import HIDE
from .film_reader import pixels_of
from .films import Film, frame_at, opened

IN_MP4 = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}  # sounds; others go into Matroska


def written(
    film: Film,
    folder: Path,
    name: str,
    *,
    action: str,
    hides: Callable[[float], bool],
    progress: Callable[[], None] = lambda: None,
) -> Path:
    """The file that was written: H.264, the first video stream, frames for which `hides(time)`."""
    import av

    chosen(action, HIDE, "action")
    size = frame_at(film, 0.0).shape[:2]
    with opened(film.source) as given:
        (video, *_), sounds = given.streams.video, given.streams.audio
        suffix = ".mp4" if all(each.codec_context.name in IN_MP4 for each in sounds) else ".mkv"
        path = folder / f"{name}{suffix}"
        with av.open(str(path), "w") as made:
            copied = {each.index: made.add_stream_from_template(each) for each in sounds}
            stream: Any = made.add_stream("h264", rate=video.average_rate or 25)
            stream.height, stream.width = (side // 2 * 2 for side in size)  # H.264 wants it even
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = video.time_base
            for packet in given.demux(video, *sounds):
                if packet.stream.index in copied:
                    if packet.dts is not None:
                        packet.stream = copied[packet.stream.index]
                        made.mux(packet)
                    continue
                for frame in packet.decode():
                    progress()
                    picture = pixels_of(frame)[: stream.height, : stream.width, :3]
                    shown = _HIDDEN[action](picture) if hides(frame.time or 0.0) else picture
                    drawn = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), "rgb24")
                    drawn.pts, drawn.time_base = frame.pts, frame.time_base
                    made.mux(stream.encode(drawn))
            made.mux(stream.encode())
    return path


def _blurred(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    coarse = image.resize((CELLS, CELLS), Image.Resampling.BOX)
    return np.asarray(coarse.resize(image.size, Image.Resampling.BILINEAR))


_HIDDEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blur": _blurred,
    "black": np.zeros_like,
}
